"""Says how severe a drift is: by its probability under the reference, and by its effect on detections. Pure.

All thresholds of a reference have the same probability, so a multiple of one means the same in each column.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from streamer.drift.distances import MIN_VALUES, jensen_shannon
from streamer.drift.rows import CLASSES, NUMERIC, Table

if TYPE_CHECKING:
    from streamer.drift.reference import ReferenceScorer

Severity = Literal["minor", "moderate", "severe"]

#: Changes of the detections that are severe: factor of the number of boxes, share of frames without a box,
#: mean confidence, and Jensen-Shannon distance of the classes.
BOXES_FACTOR, NO_BOX, CONFIDENCE, CLASS_DISTANCE = 4.0, 0.5, 0.15, 0.5
#: Ratios that are moderate or severe whatever the effect.
MODERATE_RATIO, SEVERE_RATIO = 2.0, 5.0
#: An effect that is moderate.
MODERATE_EFFECT = 0.5


def severity(ratio: float, effect: float) -> Severity:
    """Return the severity of the greatest ratio to a threshold, with an effect on detections."""
    if ratio >= SEVERE_RATIO or effect >= 1:
        return "severe"
    return "moderate" if ratio >= MODERATE_RATIO or effect >= MODERATE_EFFECT else "minor"


def effect_on_detections(scorer: ReferenceScorer, window: Table) -> float:
    """Return how much the detections of a window differ from the reference's; from 1 on, it is severe."""
    known, present = _means(scorer), {name: _mean(window.numbers[:, NUMERIC.index(name)]) for name in _NAMES}
    boxes = (known["n_boxes"] + 0.1) / (present["n_boxes"] + 0.1)
    effects = [
        abs(math.log(boxes)) / math.log(BOXES_FACTOR) if boxes > 0 else 0.0,
        abs(known["no_box"] - present["no_box"]) / NO_BOX,
        abs(known["conf_mean"] - present["conf_mean"]) / CONFIDENCE,
    ]
    classes = scorer.categories[CLASSES]
    counts = classes.count(window.categories[CLASSES])
    if min(counts.sum(), classes.counts.sum()) >= MIN_VALUES:
        effects.append(jensen_shannon(classes.counts, counts) / CLASS_DISTANCE)
    return max((effect for effect in effects if math.isfinite(effect)), default=0.0)


_NAMES = ("n_boxes", "no_box", "conf_mean")


def _means(scorer: ReferenceScorer) -> dict[str, float]:
    return {name: _mean(scorer.numbers[name]) for name in _NAMES}


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean(dtype=np.float64)) if len(finite) >= MIN_VALUES else math.nan
