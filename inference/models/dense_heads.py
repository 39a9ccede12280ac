"""Recognises outputs with a row for each grid cell: yolo, yolov5, yolox and the raw outputs of YOLO-NAS.

A reading is one possible meaning of the outputs, a `Layout`. Each function here yields every reading that the
shapes allow; `value_ranges` excludes those whose values do not fit, and `family` decides.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from inference.models.layout import CONVENTIONS, STRIDE_SETS, Layout, OutputForm, Probe, anchor_count
from inference.models.model import Family

ANCHORS_PER_CELL = 3  # in YOLOv5 and YOLOv7
#: Boxes whose numbers are at most this are fractions of the input, because no head finds only boxes so small
#: and so near the corner that all their numbers are at most 2 pixels.
MAX_FRACTION = 2.0


def yolo(probe: Probe) -> Iterator[Layout]:
    """Yield the reading [batch, 4 + classes, cells] with boxes as cx cy w h."""
    found = probe.table()
    if found is None:
        return
    name, (_, channels, cells) = found
    # A table with more channels than cells holds queries, unless the model names that many classes.
    dense = cells in probe.cell_counts() and (channels <= cells or probe.name_count == channels - 4)
    if channels >= 5 and (dense or (probe.forced and cells > channels)):
        yield Layout(
            Family.YOLO,
            (name,),
            channels - 4,
            CONVENTIONS[Family.YOLO],
            normalised=_is_fraction(probe.values(name)[:4]),
            reading=f"{channels - 4} class scores in the rows below the boxes, a column for each grid cell",
        )


def yolov5(probe: Probe) -> Iterator[Layout]:
    """Yield the reading [batch, 3 * cells, 5 + classes] with boxes as cx cy w h, and objectness."""
    found = probe.table()
    if found is None:
        return
    name, (_, cells, channels) = found
    dense = cells in probe.cell_counts(ANCHORS_PER_CELL)
    if channels >= 6 and (dense or (probe.forced and cells > channels)):
        yield Layout(
            Family.YOLOV5,
            (name,),
            channels - 5,
            CONVENTIONS[Family.YOLOV5],
            normalised=_is_fraction(probe.values(name)[:, :4]),
            reading="boxes, objectness and class scores in a row for each anchor",
        )


def yolox(probe: Probe) -> Iterator[Layout]:
    """Yield the reading [batch, cells, 5 + classes] with boxes as offsets to grid cells, and objectness."""
    found = probe.table()
    if found is None:
        return
    name, (_, cells, channels) = found
    strides = next((s for s in STRIDE_SETS if anchor_count(probe.width, probe.height, s) == cells), None)
    if strides is not None and channels >= 6:
        yield Layout(
            Family.YOLOX,
            (name,),
            channels - 5,
            CONVENTIONS[Family.YOLOX],
            strides=strides,
            reading="offsets to grid cells, objectness and class scores in a row for each cell",
        )


def yolo_nas(probe: Probe) -> Iterator[Layout]:
    """Yield the readings of boxes [batch, cells, 4] as x1 y1 x2 y2 and scores [batch, cells, classes]."""
    tables = {name: array.shape for name, array in probe.outputs.items() if array.ndim == 3}
    if len(tables) != 2 or len(probe.outputs) != 2:
        return
    for boxes, scores in (tuple(tables), tuple(reversed(tables))):
        cells = tables[boxes][1]
        dense = cells in probe.cell_counts() or probe.forced
        if dense and tables[boxes][2] == 4 and tables[scores][1] == cells:
            yield Layout(
                Family.YOLO_NAS,
                (boxes, scores),
                tables[scores][2],
                CONVENTIONS[Family.YOLO_NAS],
                form=OutputForm.SPLIT,
                reading=f"boxes as corners in `{boxes}` and class scores in `{scores}`",
                hinted="box" in boxes or "score" in scores,
            )


def _is_fraction(boxes: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bool:
    """Return whether boxes are fractions of the input; False if they are all zeros, which show nothing."""
    with np.errstate(invalid="ignore"):
        return bool(0 < np.abs(boxes).max(initial=0) <= MAX_FRACTION)
