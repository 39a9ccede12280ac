"""Recognises outputs with a row or column for each grid cell: yolo, yolov5, yolox, raw YOLO-NAS.

A reading is one possible meaning of the outputs, a `Layout`. Each function here yields every reading that the
shapes allow; `value_ranges` excludes those whose values do not fit, and `family` decides.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from inference.models.layout import (
    CONVENTIONS,
    STRIDE_SETS,
    Layout,
    OutputForm,
    Probe,
    anchor_count,
    are_fractions,
)
from inference.models.model import Family

ANCHORS_PER_CELL = 3  # in YOLOv5 and YOLOv7


def yolo(probe: Probe) -> Iterator[Layout]:
    """Yield the readings [batch, 4 + classes, cells] and its transpose, with boxes as cx cy w h.

    The transpose looks like [batch, cells, 5 + classes] of other families. So it is yielded only if the
    number of names or the family in the manifest says that there is no objectness.
    """
    for name, (_, rows, columns) in probe.tables():
        yield from _yolo_readings(probe, name, rows, columns)


def _yolo_readings(probe: Probe, name: str, rows: int, columns: int) -> Iterator[Layout]:
    counts = probe.cell_counts()
    # A table with more channels than cells holds queries, unless the model names that many classes.
    named = probe.name_count == rows - 4 or probe.forced
    dense = columns in counts and (rows <= columns or named)
    if rows >= 5 and (dense or (probe.forced and columns > rows and rows not in counts)):
        yield Layout(
            Family.YOLO,
            (name,),
            rows - 4,
            CONVENTIONS[Family.YOLO],
            normalised=are_fractions(probe.values(name)[:4].T),
            reading=f"{rows - 4} class scores in the rows below the boxes, a column for each grid cell",
        )
    named = probe.name_count == columns - 4 or probe.forced
    if columns >= 5 and rows in counts and columns not in counts and named:
        yield Layout(
            Family.YOLO,
            (name,),
            columns - 4,
            CONVENTIONS[Family.YOLO],
            normalised=are_fractions(probe.values(name)[:, :4]),
            transposed=True,
            reading=f"a box and {columns - 4} class scores in a row for each grid cell",
        )


def yolov5(probe: Probe) -> Iterator[Layout]:
    """Yield the reading [batch, 3 * cells, 5 + classes] with boxes as cx cy w h, and objectness."""
    for name, (_, cells, channels) in probe.tables():
        dense = cells in probe.cell_counts(ANCHORS_PER_CELL)
        if channels >= 6 and (dense or (probe.forced and cells > channels)):
            yield Layout(
                Family.YOLOV5,
                (name,),
                channels - 5,
                CONVENTIONS[Family.YOLOV5],
                normalised=are_fractions(probe.values(name)[:, :4]),
                reading="boxes, objectness and class scores in a row for each anchor",
            )


def yolox(probe: Probe) -> Iterator[Layout]:
    """Yield the reading [batch, cells, 5 + classes] with boxes as offsets to grid cells, and objectness."""
    for name, (_, cells, channels) in probe.tables():
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
                note="The input is filled as YOLO-NAS needs it: RGB of 0 to 1, centred letterbox. Other "
                "models with such outputs need other values of `colour`, `scale`, `mean`, `std` and "
                '`placement` in the manifest: DAMO-YOLO has `scale` 1 and `placement` "top-left".',
            )


def cell_centres(probe: Probe, count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return centres (N, 2) and strides (N, 1) of the grid cells of a head with ``count`` rows, in pixels."""
    strides = next(s for s in STRIDE_SETS if anchor_count(probe.width, probe.height, s) == count)
    centres, steps = [], []
    for stride in strides:
        rows, columns = np.mgrid[0 : probe.height // stride, 0 : probe.width // stride]
        centres.append((np.stack((columns.ravel(), rows.ravel()), axis=1) + 0.5) * stride)
        steps.append(np.full((rows.size, 1), stride))
    return np.concatenate(centres).astype(np.float32), np.concatenate(steps).astype(np.float32)
