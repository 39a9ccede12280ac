"""Turns the raw outputs of one frame into candidate boxes, for each family; `nms` suppresses duplicates.

It compares the scores with the threshold first, and computes boxes only for the rows that remain, a few of
thousands, because this runs under the lock of `batch_executor` (bench/model_side.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.core.detection_params import DetectionParams
from inference.core.detections import NO_BOXES, Boxes
from inference.graph.head import BRANCHES, Head, sigmoid
from inference.models.layout import FLAT_SCORE_AND_CLASS, Layout, OutputForm, are_fractions
from inference.models.manifest import Activation
from inference.models.model import Family

#: One output of one frame, as float32 or float16; class ids may be int64.
Array = npt.NDArray[Any]
#: Indices or class ids, one per candidate.
Index = npt.NDArray[np.intp]
Scores = npt.NDArray[np.float32]
#: Row numbers, scores and class ids of candidates, equally long.
_Kept = tuple[Index, Scores, Index]

#: Most candidates that are kept, the best ones. Suppression takes quadratic time, so this bounds the time
#: under the lock at low thresholds (bench/model_side.py).
MAX_CANDIDATES = 1000

_TINY = 1e-6

_Decoder = Callable[[Sequence[Array], DetectionParams], Boxes]


class Postprocessor:
    """Turns the outputs of one model into candidate boxes. Stateless, so any thread may use it.

    With a ``head``, the model outputs the branches of that head instead of the outputs in ``layout``.
    """

    def __init__(
        self,
        layout: Layout,
        width: int,
        height: int,
        class_count: int,
        head: Head | None = None,
        *,
        first_class_id: int = 0,
    ) -> None:
        self._layout = layout
        self._class_count = class_count
        self._first_class_id = first_class_id
        #: Width, height, width, height in pixels: scales boxes from 0..1 to the model input.
        self._extent = np.array([width, height, width, height], dtype=np.float32)
        self._levels = head.levels if head is not None else ()
        self._grid, self._stride = _grid(width, height, layout.strides)
        tables: dict[Family, _Decoder] = {
            Family.YOLO: self._yolo,
            Family.YOLO_END2END: self._end2end,
            Family.YOLOV5: self._yolov5,
            Family.YOLOX: self._opened if head is not None else self._yolox,
        }
        forms: dict[OutputForm, _Decoder] = {
            OutputForm.READY: self._ready,
            OutputForm.LOGITS: self._logits,
            OutputForm.JOINED: self._joined,
            OutputForm.SPLIT: self._split,
            OutputForm.FLAT: self._flat,
        }
        self._decode = tables[layout.family] if layout.form is OutputForm.TABLE else forms[layout.form]

    @property
    def overlapping(self) -> bool:
        """Whether a model returns several boxes for one object, so that suppression must follow."""
        dense = self._layout.family in (Family.YOLO, Family.YOLOV5, Family.YOLOX)
        return dense or self._layout.form is OutputForm.SPLIT

    def frame(self, arrays: Sequence[Array], index: int) -> list[Array]:
        """Return the part of the outputs of a run that belongs to one of its frames."""
        if self._layout.form is OutputForm.FLAT:
            return [rows[rows[:, 0] == index] for rows in arrays]
        return [array[index] for array in arrays]

    def candidates(self, outputs: Sequence[Array], params: DetectionParams) -> Boxes:
        """Return at most MAX_CANDIDATES boxes in model-input pixels, in no particular order.

        ``outputs`` are the arrays of one frame, without the batch dimension, in the order of the layout.
        Leaves out rows below the threshold, rows of classes that are not requested, and boxes that have no
        area or values that are not finite.
        """
        # Extreme values may overflow exp(). Such rows become infinite and are removed below.
        with np.errstate(over="ignore", invalid="ignore"):
            found = self._decode(outputs, params)
        if not len(found):
            return found
        if np.isfinite(found).all() and (found[:, 2:4] > found[:, :2]).all():
            return found
        sound = np.isfinite(found).all(axis=1)
        sound &= (found[:, 2] > found[:, 0]) & (found[:, 3] > found[:, 1])
        return found[sound]

    def _kept(self, rows: Index, scores: Scores, classes: Index, params: DetectionParams) -> _Kept:
        """Apply threshold, class filter and maximum count to rows with their best score and class."""
        keep = scores >= params.conf_threshold
        if params.class_ids:
            keep &= np.isin(classes, params.class_ids)
        if not keep.all():
            rows, scores, classes = rows[keep], scores[keep], classes[keep]
        if len(scores) > MAX_CANDIDATES:
            best = np.argpartition(scores, -MAX_CANDIDATES)[-MAX_CANDIDATES:]
            rows, scores, classes = rows[best], scores[best], classes[best]
        return rows, scores, classes

    def _yolo(self, outputs: Sequence[Array], params: DetectionParams) -> Boxes:
        output = outputs[0].T if self._layout.transposed else outputs[0]
        scores = output[4:]
        best = scores[0] if len(scores) == 1 else scores.max(axis=0)
        rows = np.flatnonzero(best >= params.conf_threshold)
        if not len(rows):
            return NO_BOXES
        classes = scores[:, rows].argmax(axis=0)
        rows, kept, classes = self._kept(rows, best[rows].astype(np.float32), classes, params)
        return self._from_centres(output[:4, rows].T, kept, classes)

    def _with_objectness(self, output: Array, params: DetectionParams) -> _Kept | None:
        # A class score is at most 1, so objectness alone rules out nearly every row.
        rows = np.flatnonzero(output[:, 4] >= params.conf_threshold)
        if not len(rows):
            return None
        survivors = output[rows, 4:].astype(np.float32)
        classes = survivors[:, 1:].argmax(axis=1)
        scores = survivors[:, 0] * survivors[np.arange(len(rows)), classes + 1]
        return self._kept(rows, scores, classes, params)

    def _yolov5(self, outputs: Sequence[Array], params: DetectionParams) -> Boxes:
        kept = self._with_objectness(outputs[0], params)
        if kept is None:
            return NO_BOXES
        rows, scores, classes = kept
        return self._from_centres(outputs[0][rows, :4], scores, classes)

    def _from_centres(self, centres: Array, scores: Scores, classes: Index) -> Boxes:
        """Return boxes from rows of cx, cy, w, h in pixels or, if the layout says so, in fractions."""
        corners = _centre_to_corners(centres.astype(np.float32))
        return _assemble(self._in_pixels(corners), scores, classes)

    def _in_pixels(self, corners: Array) -> npt.NDArray[np.float32]:
        """Return the boxes of a frame, which may be fractions of the input, as pixels of it."""
        fractions = self._layout.normalised
        if fractions is None:
            fractions = are_fractions(corners)
        return corners * self._extent if fractions else corners

    def _yolox(self, outputs: Sequence[Array], params: DetectionParams) -> Boxes:
        kept = self._with_objectness(outputs[0], params)
        if kept is None:
            return NO_BOXES
        rows, scores, classes = kept
        return self._from_grid(outputs[0][rows, :4].astype(np.float32), rows, scores, classes)

    def _opened(self, outputs: Sequence[Array], params: DetectionParams) -> Boxes:
        least = _logit(params.conf_threshold) if params.conf_threshold > _TINY else -math.inf
        found: list[tuple[Index, npt.NDArray[np.float32]]] = []
        begin = 0
        for number, level in enumerate(self._levels):
            boxes, objectness, features = outputs[BRANCHES * number :][:BRANCHES]
            # A class score is at most 1, so objectness alone rules out nearly every cell.
            cells = (objectness.reshape(-1) >= least).nonzero()[0]
            if len(cells):
                box, sure, feature = [
                    part.reshape(len(part), -1).take(cells, axis=1).astype(np.float32, copy=False)
                    for part in (boxes, objectness, features)
                ]
                found.append((begin + cells, np.concatenate((box, sure, level.logits(feature)))))
            begin += objectness.size
        if not found:
            return NO_BOXES
        rows, table = found[0]
        if len(found) > 1:
            rows = np.concatenate([cells for cells, _ in found])
            table = np.concatenate([columns for _, columns in found], axis=1)
        picks = np.arange(len(rows))
        logits = table[5:]
        classes = logits.argmax(axis=0)
        scores = sigmoid(table[4]) * sigmoid(logits[classes, picks])
        picks, scores, classes = self._kept(picks, scores, classes, params)
        return self._from_grid(table[:4, picks].T, rows[picks], scores, classes)

    def _from_grid(self, raw: npt.NDArray[np.float32], rows: Index, scores: Scores, classes: Index) -> Boxes:
        """Return boxes from offsets to the cell and logarithms of the sides, both in units of the stride."""
        stride = self._stride[rows]
        centres = (raw[:, :2] + self._grid[rows]) * stride
        half = np.exp(raw[:, 2:]) * stride * np.float32(0.5)
        found = np.empty((len(scores), 6), dtype=np.float32)
        found[:, :2] = centres - half
        found[:, 2:4] = centres + half
        found[:, 4] = scores
        found[:, 5] = classes
        return found

    def _end2end(self, outputs: Sequence[Array], params: DetectionParams) -> Boxes:
        rows = outputs[0].astype(np.float32)
        return self._chosen(rows[:, :4], rows[:, 4], rows[:, 5], params)

    def _flat(self, outputs: Sequence[Array], params: DetectionParams) -> Boxes:
        rows = outputs[0].astype(np.float32)
        score, kind = FLAT_SCORE_AND_CLASS[self._layout.family]
        return self._chosen(rows[:, 1:5], rows[:, score], rows[:, kind], params)

    def _split(self, outputs: Sequence[Array], params: DetectionParams) -> Boxes:
        corners, table = outputs
        best = table.max(axis=1)
        rows = np.flatnonzero(best >= params.conf_threshold)
        if not len(rows):
            return NO_BOXES
        classes = table[rows].argmax(axis=1)
        rows, scores, classes = self._kept(rows, best[rows].astype(np.float32), classes, params)
        return _assemble(corners[rows].astype(np.float32), scores, classes)

    def _ready(self, outputs: Sequence[Array], params: DetectionParams) -> Boxes:
        classes, boxes, scores = outputs
        return self._chosen(boxes.astype(np.float32), scores.astype(np.float32), classes, params)

    def _chosen(self, corners: Boxes, scores: Scores, ids: Array, params: DetectionParams) -> Boxes:
        """Select from rows that contain a class id, and leave out ids without a label."""
        first = self._first_class_id
        known = (ids >= first) & (ids < first + self._class_count)
        rows = np.flatnonzero((scores >= params.conf_threshold) & known)
        classes = ids[rows].astype(np.intp) - first
        rows, kept, classes = self._kept(rows, scores[rows], classes, params)
        return _assemble(self._in_pixels(corners[rows]), kept, classes)

    def _logits(self, outputs: Sequence[Array], params: DetectionParams) -> Boxes:
        logits, boxes = outputs
        if self._layout.activation is Activation.NONE:
            return self._queries(logits[:, : self._class_count], boxes, params)
        if self._layout.activation is Activation.SOFTMAX:
            return self._queries(_softmax(logits.astype(np.float32))[:, : self._class_count], boxes, params)
        # Columns beyond the class count are not classes: RF-DETR, for example, has one for the background.
        logits = logits[:, : self._class_count]
        queries, classes = np.nonzero(logits >= _logit(params.conf_threshold))
        scores = sigmoid(logits[queries, classes].astype(np.float32))
        return self._chosen_queries(queries, scores, classes, boxes, params)

    def _joined(self, outputs: Sequence[Array], params: DetectionParams) -> Boxes:
        return self._queries(outputs[0][:, 4:], outputs[0][:, :4], params)

    def _queries(self, table: Array, boxes: Array, params: DetectionParams) -> Boxes:
        """Select from the scores (queries, classes) of boxes given as cx, cy, w, h in fractions."""
        queries, classes = np.nonzero(table >= params.conf_threshold)
        return self._chosen_queries(
            queries, table[queries, classes].astype(np.float32), classes, boxes, params
        )

    def _chosen_queries(
        self, queries: Index, scores: Scores, classes: Index, boxes: Array, params: DetectionParams
    ) -> Boxes:
        # A query may have several classes, because sigmoid scores are independent.
        if not len(queries):
            return NO_BOXES
        queries, kept, classes = self._kept(queries, scores, classes, params)
        corners = _centre_to_corners(boxes[queries].astype(np.float32)) * self._extent
        return _assemble(corners, kept, classes)


def _grid(
    width: int, height: int, strides: tuple[int, ...]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return column and row (N, 2) and stride (N, 1) of each anchor of a yolox head, in output order."""
    cells, steps = [], []
    for stride in strides:
        rows, columns = np.mgrid[0 : height // stride, 0 : width // stride]
        cells.append(np.stack((columns.ravel(), rows.ravel()), axis=1))
        steps.append(np.full((rows.size, 1), stride))
    if not cells:
        return np.empty((0, 2), np.float32), np.empty((0, 1), np.float32)
    return np.concatenate(cells).astype(np.float32), np.concatenate(steps).astype(np.float32)


def _centre_to_corners(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Turn rows of cx, cy, w, h into x1, y1, x2, y2."""
    half = boxes[:, 2:] * np.float32(0.5)
    return np.concatenate((boxes[:, :2] - half, boxes[:, :2] + half), axis=1)


def _assemble(corners: npt.NDArray[np.float32], scores: Scores, classes: Index) -> Boxes:
    found = np.empty((len(scores), 6), dtype=np.float32)
    found[:, :4] = corners
    found[:, 4] = scores
    found[:, 5] = classes
    return found


def _logit(score: float) -> float:
    score = min(max(score, _TINY), 1 - _TINY)
    return math.log(score / (1 - score))


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)
