"""Explains why the values of a probe run do not fit a reading: scores outside 0..1, or impossible boxes.

A shape alone cannot tell a box from a keypoint. Models for keypoints, masks and oriented boxes have the
shapes of detectors with more classes, but their values are not scores. Rows of zeros are padding and fit
every reading.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.models.dense_heads import cell_centres
from inference.models.exporters import is_tensorflow
from inference.models.layout import FLAT_SCORE_AND_CLASS, MAX_FRACTION, Layout, OutputForm, Probe
from inference.models.manifest import Activation
from inference.models.model import Family
from inference.models.query_heads import are_probabilities

_Floats = npt.NDArray[np.float32]

#: Allowed deviation of values, because of rounding in half precision.
_TOLERANCE = 0.01
#: Range of numbers in boxes given as fractions of the input; boxes at its edges reach beyond it.
_LOWEST_FRACTION, _HIGHEST_FRACTION = -0.5, 1.5
#: Allowed share of boxes with a negative side. Heads that predict distances without a distribution have some
#: such boxes, with low scores.
_INVERTED_SHARE = 0.2
#: Range of the angles of oriented boxes, in radians: 45 degrees plus or minus a quarter turn.
_LEAST_ANGLE, _MOST_ANGLE = -math.pi / 4, math.pi * 3 / 4
#: A score that no class has in every row.
_SURE = 0.99
#: A class scores less than this in most grid cells of the validation run, which shows a gradient.
_USUAL_SCORE = 0.2
#: Fewer rows than these show nothing about how boxes are spread, and the share of rows that is nearly all.
_FEW, _MOST = 20, 0.9
#: Numbers of larger magnitude are coordinates; logits and mask coefficients are smaller.
_COORDINATE = 30.0


def fault_of(probe: Probe, layout: Layout) -> str:
    """Return what in the values of ``probe`` contradicts ``layout``; empty if nothing does."""
    tables = [probe.values(name) for name in layout.outputs if layout.form is not OutputForm.FLAT]
    if any(not np.isfinite(table).all() for table in tables):
        return ""  # such a run proves nothing; the postprocessor leaves out rows that are not finite
    return _masks(probe) or _values_fault(probe, layout, tables)


def _values_fault(probe: Probe, layout: Layout, tables: list[_Floats]) -> str:
    match layout.form:
        case OutputForm.READY:
            fault = _rows_fault(tables[1], tables[2], tables[0]) or _edges_fault(probe, layout)
        case OutputForm.LOGITS:
            fault = _centres_fault(tables[1]) or _logits_fault(tables[0], layout)
        case OutputForm.JOINED:
            fault = _joined_fault(tables[0], half=probe.outputs[layout.outputs[0]].dtype == np.float16)
        case OutputForm.SPLIT:
            fault = _pixels_fault(tables[0]) or _corners_fault(tables[0])
            fault = fault or _dense_fault(probe, layout, tables[1].T, 0)
        case OutputForm.FLAT:
            fault = _flat_fault(probe.outputs[layout.outputs[0]].astype(np.float32), layout)
        case _:
            fault = _table_fault(probe, layout, tables[0])
    return fault


def _table_fault(probe: Probe, layout: Layout, table: _Floats) -> str:
    if layout.family is Family.YOLO_END2END:
        if table.shape[1] > 6:
            return (
                f"{table.shape[1]} columns, where a box with score and class has 6; the others may be an "
                "angle (oriented boxes), keypoints (pose) or mask coefficients (segmentation)"
            )
        return _rows_fault(table[:, :4], table[:, 4], table[:, 5])
    columns = table if layout.family is Family.YOLO and not layout.transposed else table.T
    if layout.family is Family.YOLO and columns[4].min(initial=1) >= _SURE and columns.shape[1] > 1:
        return "a first score of 1 in every row, which is the objectness of other families"
    offsets_fault = _offsets_fault(probe, table[:, :4]) if layout.family is Family.YOLOX else ""
    if layout.family is Family.YOLO:
        return _dense_fault(probe, layout, columns, 4)
    return offsets_fault or _scores_fault(columns, 4)


def _dense_fault(probe: Probe, layout: Layout, columns: _Floats, first: int) -> str:
    """Return what is wrong with the scores of a head that has no objectness, from the column ``first``.

    Angles, keypoints in fractions and coefficients of masks may happen to be all in 0..1. They are large in
    most cells, and differ between them; no class is found in most cells of a gradient. If one is after all,
    the family in the manifest says that the numbers are scores.
    """
    scores = columns[first:]
    if (fault := _scores_fault(columns, first)) or scores.shape[1] < _FEW or probe.forced:
        return fault
    usual = np.median(scores, axis=1)
    wrong = np.flatnonzero((usual > _USUAL_SCORE) & (np.ptp(scores, axis=1) > _TOLERANCE))
    if not len(wrong):
        return ""
    return (
        f"values around {usual[wrong[0]]:.2g} in most rows where scores belong, and no class is everywhere "
        f"(number {first + int(wrong[0])} of {len(columns)}): perhaps an angle of an oriented-box (OBB) "
        "model, keypoints of a pose model, or coefficients of masks. If they are scores, set "
        f"`{layout.manifest_line}` in the manifest"
    )


def _offsets_fault(probe: Probe, boxes: _Floats) -> str:
    """Return what is wrong with boxes given as raw offsets to grid cells.

    Raw offsets are about one grid cell; pixel coordinates are about half the input. Confusing the two would
    give boxes that look plausible and are wrong.
    """
    if float(np.median(np.abs(boxes[:, :2]))) > min(probe.width, probe.height) / 8:
        return "boxes that are in pixels already, and not raw grid offsets"
    if _are_grid_fractions(probe, boxes):
        return "boxes that are fractions of the input already, and not raw grid offsets"
    return ""


def _are_grid_fractions(probe: Probe, boxes: _Floats) -> bool:
    """Return whether boxes (cells, 4) are fractions of the input: then their centres are near their cells."""
    used = boxes.any(axis=1)
    if used.sum() < _FEW or boxes[used, 2:].min() < 0 or boxes[used].max() > _HIGHEST_FRACTION:
        return False
    centres, strides = cell_centres(probe, len(boxes))
    off = np.abs(boxes[:, :2] * np.array([probe.width, probe.height], np.float32) - centres)
    return bool((off <= 2 * strides)[used].all(axis=1).mean() > _MOST)


def _edges_fault(probe: Probe, layout: Layout) -> str:
    """Return what is uncertain about corners that are fractions in a model of TensorFlow's input order."""
    if probe.forced or not layout.normalised or not (probe.channels_last or is_tensorflow(probe.path)):
        return ""
    where = (
        "planes that are the last dimension of the input" if probe.channels_last else "the producer tf2onnx"
    )
    return (
        f"boxes in fractions and {where}, as TensorFlow has both, "
        "whose boxes are y1 x1 y2 x2, which are not served. If they are x1 y1 x2 y2, set "
        f"`{layout.manifest_line}` in the manifest"
    )


def _scores_fault(columns: _Floats, first: int) -> str:
    """Return what is wrong with the scores in ``columns`` (columns, rows) from the column ``first``."""
    scores = columns[first:]
    low, high = float(scores.min(initial=0)), float(scores.max(initial=0))
    if low >= -_TOLERANCE and high <= 1 + _TOLERANCE:
        return ""
    outside = np.flatnonzero((scores.min(axis=1) < -_TOLERANCE) | (scores.max(axis=1) > 1 + _TOLERANCE))
    number = first + int(outside[0])
    count = len(columns)
    text = (
        f"values of {low:.4g} to {high:.4g} where scores of 0 to 1 belong (from number {number} of {count})"
    )
    if max(high, -low) > _COORDINATE:
        return text + ": coordinates, perhaps the keypoints of a pose model"
    if number == count - 1 and low >= _LEAST_ANGLE - _TOLERANCE and high <= _MOST_ANGLE + _TOLERANCE:
        return text + ": an angle, perhaps that of an oriented-box (OBB) model"
    return text + ": perhaps logits, the coefficients of masks, or an angle"


def _rows_fault(boxes: _Floats, scores: _Floats, ids: _Floats) -> str:
    """Return what is wrong with rows of corners, score and class id."""
    used = boxes.any(axis=1) & (scores != 0)
    boxes, scores, ids = boxes[used], scores[used], ids[used]
    # Some exports pad with rows of -1.
    padding = (ids == -1) | (scores == -1)
    boxes, scores, ids = boxes[~padding], scores[~padding], ids[~padding]
    if not len(scores):
        return ""
    if scores.min() < -_TOLERANCE or scores.max() > 1 + _TOLERANCE:
        return f"scores of {scores.min():.4g} to {scores.max():.4g}, and scores are 0 to 1"
    if (ids != np.round(ids)).any() or ids.min() < 0:
        wrong = ids[(ids != np.round(ids)) | (ids < 0)][0]
        return f"class id {wrong:.4g}, and ids are whole numbers from 0"
    return _corners_fault(boxes)


def _corners_fault(boxes: _Floats) -> str:
    """Return what is wrong with boxes given by their corners x1 y1 x2 y2, in any unit."""
    slack = _TOLERANCE * max(1.0, float(np.abs(boxes).max(initial=0)))
    wrong = (boxes[:, 2:] < boxes[:, :2] - slack).any(axis=1)
    if wrong.sum() <= _INVERTED_SHARE * boxes.any(axis=1).sum():
        return ""
    sides = ", ".join(f"{side:.4g}" for side in boxes[wrong][0])
    return f"boxes whose right edge is left of the left one, or bottom above top ({sides})"


def _pixels_fault(boxes: _Floats) -> str:
    """Return what is wrong with boxes in pixels of the input."""
    return "boxes of at most a pixel" if 0 < np.abs(boxes).max(initial=0) <= MAX_FRACTION else ""


def _fractions_fault(boxes: _Floats) -> str:
    """Return what is wrong with boxes given as cx cy w h in fractions of the input."""
    low, high = float(boxes.min(initial=0)), float(boxes.max(initial=0))
    if low < _LOWEST_FRACTION or high > _HIGHEST_FRACTION:
        return f"boxes with numbers of {low:.4g} to {high:.4g}, and fractions of the input are 0 to 1"
    if float(boxes[:, 2:].min(initial=0)) < -_TOLERANCE:
        return "boxes with a negative width or height"
    return ""


def _centres_fault(boxes: _Floats) -> str:
    """Return what is wrong with boxes given as cx cy w h in fractions of the input."""
    if fault := _fractions_fault(boxes):
        return fault
    # The centres of queries are spread over the image, so that many are further right than their box is wide.
    if len(boxes) >= _FEW and (boxes[:, 2:] > boxes[:, :2]).all():
        return "boxes that are corners (x1 y1 x2 y2), and those of a detr are cx cy w h"
    return ""


def _joined_fault(table: _Floats, *, half: bool) -> str:
    if not table.any(axis=1).all():
        return "rows of zeros, and a detr gives each of its queries a box with a size"
    if fault := _centres_fault(table[:, :4]):
        return fault
    if not (table[:, 2:4] > 0).all():
        return "boxes without width or height"
    # Coordinates and sigmoid scores are no whole numbers, except that small scores are 0 in half precision.
    whole = (table == np.round(table)).all(axis=0) & (table.any(axis=0) | (not half))
    if whole.any() and len(table) > 1:
        return f"only whole numbers in column {int(np.flatnonzero(whole)[0])}, like class ids"
    return _scores_fault(table.T, 4)


def _logits_fault(table: _Floats, layout: Layout) -> str:
    if layout.activation is not Activation.NONE:
        return ""
    if are_probabilities(table, layout.activation) and table[:, -1].mean() < 1 / 2:
        return "scores that add up to 1 for each box, but whose last class is not the background"
    return _scores_fault(table.T, 0)


def _flat_fault(rows: _Floats, layout: Layout) -> str:
    if not len(rows):
        return ""
    frames = rows[:, 0]
    if (frames != np.round(frames)).any() or frames.min() < 0:
        return f"{frames.max():.4g} where the number of the frame belongs"
    score, kind = FLAT_SCORE_AND_CLASS[layout.family]
    return _rows_fault(rows[:, 1:5], rows[:, score], rows[:, kind])


def _masks(probe: Probe) -> str:
    """Return which output holds masks; empty if none does.

    Segmentation models have one map of prototypes at a quarter of the input's size, or a mask for each query.
    Raw heads, which some detectors output too, come in several sizes.
    """
    maps = {name: array.shape for name, array in probe.outputs.items() if array.ndim == 4}
    if len(maps) != 1:
        return ""
    ((name, shape),) = maps.items()
    if (shape[2] * 4, shape[3] * 4) != (probe.height, probe.width) and "mask" not in name:
        return ""
    return f"`{name}` {_text(shape)}, which holds masks: this is a segmentation model"


def _text(shape: tuple[Any, ...]) -> str:
    return str(list(shape))
