"""How unsure the model is of a frame, from its scores alone. Pure.

The tent: 1 at the operating threshold, 0 for a score of 0 or 1. With a threshold of 0.5, 0.7 and more means
a score in [0.35, 0.65]; with 0.25, one in [0.175, 0.475].
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from inference.core.detections import Boxes

#: Boxes looked at, best first: beyond these are repeats of the same doubt.
MAX_BOXES = 50
#: The rank is the mean of so many: one box must not starve crowded frames, nor crowds all others.
RANKED_BOXES = 3


def doubts(scores: npt.NDArray[np.float32], threshold: float) -> npt.NDArray[np.float64]:
    """Return u(p) of each score: ``p/t`` below the threshold t, ``(1-p)/(1-t)`` from it on; in [0, 1]."""
    p = np.clip(scores.astype(np.float64), 0.0, 1.0)
    rising = p / threshold if threshold > 0 else np.ones_like(p)
    falling = (1 - p) / (1 - threshold) if threshold < 1 else np.ones_like(p)
    return np.where(p < threshold, rising, falling)


def confidence_doubt(boxes: Boxes, threshold: float) -> tuple[float, float]:
    """Return the greatest doubt of the boxes, and their rank, the mean of the three greatest; 0 without."""
    found = np.sort(doubts(boxes[:MAX_BOXES, 4], threshold))[::-1]
    if not found.size:
        return 0.0, 0.0
    return float(found[0]), float(found[:RANKED_BOXES].mean())
