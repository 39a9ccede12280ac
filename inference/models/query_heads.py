"""Recognises outputs with one row per object or query: all forms of detr, and boxes after suppression.

Each public function here yields every reading that the shapes allow, as a `Layout`. Then `value_ranges`
excludes the readings that the values contradict, and `family` decides between the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from inference.models.class_names import COCO_91, COCO_UNUSED_IDS
from inference.models.dense_heads import ANCHORS_PER_CELL
from inference.models.fields import Triple
from inference.models.layout import CONVENTIONS, Layout, OutputForm, Probe, are_fractions
from inference.models.manifest import Activation
from inference.models.model import Family

#: A detr has a few hundred queries; thousands of rows belong to a dense head.
_MAX_QUERIES = 2000
_IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
_IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
#: Most rows of a table that may be a transposed dense head; every detr has more queries than this.
_FEW_ROWS = 10
#: A table with more columns than both limits allow has a column for each grid cell, not for each class.
_MOST_COLUMNS, _MOST_COLUMNS_PER_ROW = 1000, 5
#: Number of columns in the form FLAT: number of the frame, four sides, and class and score in either order.
FLAT_COLUMNS = 7
#: If the last class is the best one of more than this share of the queries, it means "no object".
_NO_OBJECT_SHARE = 0.5
#: Parts of the names that exporters give to outputs with scores or logits.
_SCORE_NAMES = ("logit", "score", "label", "class", "cls", "prob")
#: Names that Hugging Face gives to the outputs of the last decoder; those of others have longer names.
_HUGGING_FACE = {"logits", "pred_boxes"}
#: Allowed deviation of the sum of probabilities, because of rounding in half precision.
_SUM_TOLERANCE = 0.01
#: A class that occurred in no training image scores less than this.
_FOUND_SCORE = 0.25


def end2end(probe: Probe) -> Iterator[Layout]:
    """Yield the reading [batch, boxes, 6] as x1 y1 x2 y2 score class.

    It is also yielded for more columns, which belong to other tasks: `value_ranges` then names them.
    """
    for name, shape in probe.tables():
        if shape[2] < 6 or _is_dense(probe, shape):
            continue
        yield Layout(
            Family.YOLO_END2END,
            (name,),
            None,
            CONVENTIONS[Family.YOLO_END2END],
            normalised=are_fractions(probe.values(name)[:, :4]),
            reading="x1 y1 x2 y2 score class in each row",
            hinted=probe.metadata.get("end2end") == "True",
        )


def joined(probe: Probe) -> Iterator[Layout]:
    """Yield the reading [batch, queries, 4 + classes] of Ultralytics' RT-DETR: cx cy w h, then scores."""
    for name, (_, rows, columns) in probe.tables():
        if _is_dense(probe, (1, rows, columns)) or columns < 5 or not _FEW_ROWS < rows <= _MAX_QUERIES:
            continue
        yield Layout(
            Family.DETR,
            (name,),
            columns - 4,
            CONVENTIONS[Family.DETR],
            form=OutputForm.JOINED,
            reading=f"cx cy w h as fractions of the input, then {columns - 4} class scores in each row",
            hinted="detr" in probe.metadata.get("description", "").lower(),
        )


def _is_dense(probe: Probe, shape: tuple[int, ...]) -> bool:
    """Return whether rows or columns are the cells of a dense head.

    Return False if the manifest names the family, or if the metadata say that suppression is built in.
    """
    _, rows, columns = shape
    declared = probe.forced or probe.metadata.get("end2end") == "True"
    counts = probe.cell_counts() | probe.cell_counts(ANCHORS_PER_CELL)
    transposed = columns in counts and rows <= _FEW_ROWS
    too_wide = columns > max(_MOST_COLUMNS, _MOST_COLUMNS_PER_ROW * rows)
    return not declared and (rows in counts or transposed or too_wide)


def yolov7_end2end(probe: Probe) -> Iterator[Layout]:
    """Yield the reading [rows, 7] as frame x1 y1 x2 y2 class score."""
    if (name := _flat(probe)) is not None:
        yield Layout(
            Family.YOLOV7_END2END,
            (name,),
            None,
            CONVENTIONS[Family.YOLOV7_END2END],
            form=OutputForm.FLAT,
            normalised=are_fractions(probe.outputs[name][:, 1:5].astype(np.float32)),
            reading="frame x1 y1 x2 y2 class score in each row",
            hinted=name == "output" and not probe.takes_bytes,
        )


def yolo_nas_flat(probe: Probe) -> Iterator[Layout]:
    """Yield the reading [rows, 7] as frame x1 y1 x2 y2 score class, the flat predictions of YOLO-NAS."""
    if (name := _flat(probe)) is not None:
        yield Layout(
            Family.YOLO_NAS,
            (name,),
            None,
            CONVENTIONS[Family.YOLO_NAS],
            form=OutputForm.FLAT,
            normalised=are_fractions(probe.outputs[name][:, 1:5].astype(np.float32)),
            reading="frame x1 y1 x2 y2 score class in each row",
            hinted="flat" in name or probe.takes_bytes,
        )


def _flat(probe: Probe) -> str | None:
    names = list(probe.outputs)
    flat = len(names) == 1 and probe.outputs[names[0]].ndim == 2
    return names[0] if flat and probe.outputs[names[0]].shape[1] == FLAT_COLUMNS else None


def ready(probe: Probe) -> Iterator[Layout]:
    """Yield the reading of class ids [batch, N], boxes [batch, N, 4] as x1 y1 x2 y2, and scores [batch, N].

    If there is a box for each grid cell, the model is a yolo whose boxes are not suppressed yet. If there is
    an output with the number of boxes, it is a YOLO-NAS, or else a detr.
    """
    shapes = {name: array.shape for name, array in probe.outputs.items()}
    counted = any("num" in name for name in shapes)
    for boxes, shape in shapes.items():
        if len(shape) != 3 or shape[2] != 4:
            continue
        dense = shape[1] in probe.cell_counts()
        if not dense and shape[1] > _MAX_QUERIES:
            continue
        rank2 = [name for name, other in shapes.items() if other == shape[:2] and "num" not in name]
        ids = [name for name in rank2 if "label" in name or "class" in name]
        family = Family.YOLO_NAS if counted else Family.YOLO if dense else Family.DETR
        for kind, scores in itertools.product(ids, [name for name in rank2 if name not in ids]):
            yield Layout(
                family,
                (kind, boxes, scores),
                None,
                CONVENTIONS[family],
                form=OutputForm.READY,
                normalised=False if probe.has_sizes_input else are_fractions(probe.values(boxes)),
                reading="class ids, boxes as corners, and scores",
            )


def logits(probe: Probe) -> Iterator[Layout]:
    """Yield the readings of logits [batch, N, classes] and boxes [batch, N, 4] as cx cy w h in 0..1."""
    tables = {name: array.shape for name, array in probe.outputs.items() if array.ndim == 3}
    if tables.keys() >= _HUGGING_FACE:
        tables = {name: shape for name, shape in tables.items() if name in _HUGGING_FACE}
    for boxes, shape in tables.items():
        if shape[2] != 4 or shape[1] > _MAX_QUERIES:
            continue
        if shape[1] in probe.cell_counts() and not probe.forced:
            continue  # a box for each grid cell, and several for each object
        for scores in tables:
            if scores != boxes and tables[scores][1] == shape[1] and "box" not in scores:
                yield from _logit_readings(probe, scores, boxes)


def _logit_readings(probe: Probe, name: str, boxes: str) -> Iterator[Layout]:
    table = probe.values(name)
    count = table.shape[1]
    activation = probe.manifest.activation or _activation(table)
    # With softmax in the graph, the scores of a query and its "no object" add up to 1.
    has_background = activation is Activation.SOFTMAX or are_probabilities(table, activation)
    convention = CONVENTIONS[Family.DETR]
    # RF-DETR (`dets`, `labels`) and the original DETR keep the normalisation of their backbones.
    is_rfdetr = boxes == "dets"
    if is_rfdetr or activation is Activation.SOFTMAX:
        convention = replace(convention, mean=_IMAGENET_MEAN, std=_IMAGENET_STD)
    layout = Layout(
        Family.DETR,
        (name, boxes),
        count - 1 if has_background else count,
        convention,
        form=OutputForm.LOGITS,
        activation=activation,
        reading=f"logits of {count} classes in `{name}`, boxes in `{boxes}`",
        hinted=("box" in boxes or "det" in boxes) and any(part in name for part in _SCORE_NAMES),
    )
    # RF-DETR has one logit more than it has classes, and its exporter treats the last one as the background.
    # Models that were trained on COCO have a logit for each category id, and none for the background.
    if is_rfdetr and not has_background and count > 1 and probe.name_count != count:
        layout = replace(
            layout,
            class_count=count - 1,
            reading=f"logits of {count - 1} classes and the background in `{name}`",
            note=f"The last of {count} logits is left out: in exports of RF-DETR it is the background. If "
            f"the category ids of your data set begin at 1, give {count} `labels`, the first for id 0.",
        )
    ids = len(COCO_91)
    if probe.name_count or count != (ids + 1 if has_background else ids):
        yield layout
        return
    by_id = replace(
        layout,
        class_count=ids,
        coco_ids=True,
        reading="the 91 category ids of COCO",
        decided_by='"labels": "coco-91"',
        note="",
    )
    like_coco = _is_coco(table[:, :ids])
    if like_coco is not True:
        yield replace(
            layout,
            reading=f"{layout.class_count} classes of another data set",
            decided_by=f'"labels": [{layout.class_count} class names]',
        )
    if like_coco is not False:
        yield by_id


def _activation(table: npt.NDArray[np.float32]) -> Activation:
    """Return the activation that turns logits (queries, classes) into scores, by their values.

    With softmax, nearly every query has its highest logit in the last class, "no object". With sigmoid, such
    a positive logit would mean that nearly every query has found an object of that class. Logits of a detr
    are negative for nearly all classes, so a table with only numbers of 0 to 1 holds scores already.
    """
    if not table.size or not table.any():
        return Activation.SIGMOID
    last = table[:, -1]
    if table.min() >= 0 and table.max() <= 1:
        return Activation.NONE
    no_object = (table.argmax(axis=1) == table.shape[1] - 1) & (last > 0)
    return Activation.SOFTMAX if no_object.mean() > _NO_OBJECT_SHARE else Activation.SIGMOID


def are_probabilities(table: npt.NDArray[np.float32], activation: Activation) -> bool:
    """Return whether the scores (queries, classes) of every query add up to 1, as softmax makes them."""
    sums = table.sum(axis=1)
    return (
        activation is Activation.NONE and table.shape[1] > 1 and bool((abs(sums - 1) < _SUM_TOLERANCE).all())
    )


def _is_coco(table: npt.NDArray[np.float32]) -> bool | None:
    """Return whether logits of 91 classes are those of a model trained on COCO; None if they do not show it.

    Eleven of COCO's ids have no category. A model trained on COCO never saw a positive example of them, so
    their logits are lower than most. The probability that all eleven are below the median by chance is about
    one in two thousand.
    """
    best = table.max(axis=0)
    unused = best[list(COCO_UNUSED_IDS)]
    used = np.delete(best, COCO_UNUSED_IDS)
    if unused.max() < np.median(used):
        return True
    with np.errstate(over="ignore"):
        found = 1 / (1 + np.exp(-unused.max())) >= _FOUND_SCORE
    return False if found and unused.max() >= np.median(used) else None
