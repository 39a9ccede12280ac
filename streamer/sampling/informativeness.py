"""Computes how informative a frame is: uncertainty, flicker, disagreement, class balance. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from inference.core.detections import Boxes
from inference.core.overlap import match

#: Only this many boxes with the highest scores are considered; more would repeat the same uncertainty.
MAX_BOXES = 50
#: A frame is ranked by the mean of this many most uncertain boxes. One box would be too
#: little evidence; in the mean of all boxes, certain boxes would outweigh the uncertain ones.
RANKED_BOXES = 3
#: Smallest IoU at which boxes of consecutive frames count as the same object. The frames are at most half a
#: second apart.
FLICKER_IOU = 0.3
#: Smallest IoU at which boxes of two models in one frame count as the same object.
DISAGREEMENT_IOU = 0.5
MIN_WEIGHT, MAX_WEIGHT = 0.5, 2.0


def score_uncertainty(scores: npt.NDArray[np.float32], threshold: float) -> npt.NDArray[np.float64]:
    """Return the uncertainty of each score, in [0, 1].

    It is ``p/t`` for a score p below the threshold t, else ``(1-p)/(1-t)``: 1 at the threshold, 0 at 0 and 1.
    An uncertainty of at least 0.7 means a score in [0.35, 0.65] with a threshold of 0.5, and in [0.175,
    0.475] with 0.25.
    """
    p = np.clip(scores.astype(np.float64), 0.0, 1.0)
    rising = p / threshold if threshold > 0 else np.ones_like(p)
    falling = (1 - p) / (1 - threshold) if threshold < 1 else np.ones_like(p)
    return np.where(p < threshold, rising, falling)


def uncertainty(boxes: Boxes, threshold: float) -> tuple[float, float]:
    """Return the greatest uncertainty of the boxes, and the mean of the three greatest; 0 without boxes."""
    found = np.sort(score_uncertainty(boxes[:MAX_BOXES, 4], threshold))[::-1]
    if not found.size:
        return 0.0, 0.0
    return float(found[0]), float(found[:RANKED_BOXES].mean())


def flicker(before: Boxes, middle: Boxes, after: Boxes) -> float:
    """Return the flicker of three consecutive frames: ``(blips + gaps) / tracks``, in [0, 1].

    All boxes must be over the threshold. A blip is an object found in the middle frame only; a gap is an
    object found in both others but not in the middle. Tracks are the objects of the three frames, each
    counted once. Most isolated detections are hard negatives (Jin et al., ECCV 2018, arXiv 1808.04285).
    """
    to_before = {m for m, _, _ in match(middle, before, FLICKER_IOU)}
    seen_before = {b for _, b, _ in match(middle, before, FLICKER_IOU)}
    to_after = {m for m, _, _ in match(middle, after, FLICKER_IOU)}
    seen_after = {a for _, a, _ in match(middle, after, FLICKER_IOU)}
    blips = len(set(range(len(middle))) - to_before - to_after)
    lost = [index for index in range(len(before)) if index not in seen_before]
    found = [index for index in range(len(after)) if index not in seen_after]
    gaps = len(match(before[lost], after[found], FLICKER_IOU))
    tracks = len(middle) + len(lost) + len(found) - gaps
    return (blips + gaps) / max(1, tracks)


def disagreement(first: Boxes, second: Boxes) -> float:
    """Return how much two models disagree on one frame, in [0, 1]; 0 when neither finds anything.

    The value is ``1 - sum over pairs of IoU (p + q) / sum of all scores``, where p and q are the scores of a
    pair. It uses the 50 best boxes of each model. Pairs are matched greedily, within a class.
    """
    first, second = first[:MAX_BOXES], second[:MAX_BOXES]
    total = float(first[:, 4].sum() + second[:, 4].sum())
    if not total:
        return 0.0
    agreed = sum(
        iou * float(first[row, 4] + second[column, 4])
        for row, column, iou in match(first, second, DISAGREEMENT_IOU)
    )
    return min(1.0, max(0.0, 1 - agreed / total))


class ClassBalance:
    """Weights frames by their rarest class, so that the most common class does not fill up the samples.

    One instance serves one model version, because class ids differ between versions.
    """

    def __init__(self) -> None:
        #: Number of samples that contain each class.
        self._taken: Counter[int] = Counter()

    def weight(self, classes: Iterable[int]) -> float:
        """Return ``sqrt(n / (C (n_c + 1)))`` for the rarest class c, clipped to [0.5, 2]; 1 without boxes.

        n is the sum of the class counts n_c, C the number of classes found so far: with a model of 80
        classes, a camera may see three.
        """
        rarest = min((self._taken[number] for number in set(classes)), default=None)
        total = self._taken.total()
        if rarest is None or not total:
            return 1.0
        weight = math.sqrt(total / (len(self._taken) * (rarest + 1)))
        return min(MAX_WEIGHT, max(MIN_WEIGHT, weight))

    def count(self, classes: Iterable[int]) -> None:
        """Count a sample with these classes."""
        self._taken.update(set(classes))

    def state(self) -> list[list[int]]:
        """Return the pairs of class and count, for :meth:`restore`."""
        return [list(pair) for pair in sorted(self._taken.items())]

    def restore(self, state: Iterable[Sequence[int]]) -> None:
        """Continue from a state. Raises TypeError or ValueError if it is none."""
        self._taken = Counter({int(number): int(count) for number, count in state})
