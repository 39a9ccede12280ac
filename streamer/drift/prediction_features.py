"""Measures of what the model found in a picture. Pure."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import numpy.typing as npt

from inference.core.overlap import pairwise_iou
from streamer.drift.columns import PREDICTION, Bag

Boxes = npt.NDArray[np.float32]

#: Boxes whose overlaps are looked at, best first.
MAX_BOXES = 50
#: A box within this share of a side touches the edge.
EDGE_SHARE = 0.01
#: Labels counted of one row; a picture with more kinds is counted by its most frequent ones.
MAX_CLASSES = 8
NO_CLASS = "none"


def prediction_features(boxes: Boxes, threshold: float, width: int, height: int) -> dict[str, float]:
    """Return the columns of ``PREDICTION``.

    ``boxes`` are (N, 6): xyxy in pixels of the upright picture of ``width`` x ``height``, score, class id,
    those below ``threshold`` too. Positions and sizes count boxes from the threshold on, as shares of the
    picture; NaN where there is none.
    """
    over = boxes[boxes[:, 4] >= np.float32(threshold)]
    shown, low = len(over), len(boxes) - len(over)
    values = (
        shown,
        low,
        float(shown == 0),
        *_scores(over),
        low / len(boxes) if len(boxes) else math.nan,
        *_places(over, width, height),
        len(set(over[:, 5].tolist())),
        overlap(over[:MAX_BOXES]),
    )
    return dict(zip(PREDICTION, map(float, values), strict=True))


def count_classes(boxes: Boxes, threshold: float, labels: tuple[str, ...]) -> Bag:
    """Return how many boxes of each label there are, the most frequent first."""
    over = boxes[boxes[:, 4] >= np.float32(threshold)]
    counts = Counter(_label(int(number), labels) for number in over[:, 5].tolist())
    return tuple(counts.most_common(MAX_CLASSES))


def top_class(boxes: Boxes, threshold: float, labels: tuple[str, ...]) -> str:
    """Return the label of the best box; `none` without."""
    over = boxes[boxes[:, 4] >= np.float32(threshold)]
    return _label(int(over[np.argmax(over[:, 4]), 5]), labels) if len(over) else NO_CLASS


def overlap(boxes: Boxes) -> float:
    """Return the greatest IoU of any two boxes; 0 with fewer than two."""
    if len(boxes) < 2:
        return 0.0
    corners = boxes[:, :4].astype(np.float64)
    ious = pairwise_iou(corners, corners)
    np.fill_diagonal(ious, 0.0)
    return float(ious.max())


def _label(number: int, labels: tuple[str, ...]) -> str:
    return labels[number] if number < len(labels) else str(number)


def _scores(boxes: Boxes) -> tuple[float, float, float]:
    if not len(boxes):
        return math.nan, math.nan, math.nan
    scores = boxes[:, 4].astype(np.float64)
    return float(scores.mean()), float(scores.max()), float(scores.min())


def _places(boxes: Boxes, width: int, height: int) -> tuple[float, ...]:
    """Return area_med, area_max, log_aspect_med, cx_med, cy_med, edge_frac."""
    if not len(boxes):
        return (math.nan,) * 6
    x1, y1, x2, y2 = (boxes[:, :4].astype(np.float64) / (width, height, width, height)).T
    wide, high = np.maximum(x2 - x1, 1e-6), np.maximum(y2 - y1, 1e-6)
    areas = wide * high
    touching = np.minimum.reduce([x1, y1, 1 - x2, 1 - y2]) <= EDGE_SHARE
    return (
        float(np.median(areas)),
        float(areas.max()),
        float(np.median(np.log(wide * width / (high * height)))),
        float(np.median((x1 + x2) / 2)),
        float(np.median((y1 + y2) / 2)),
        float(touching.mean()),
    )
