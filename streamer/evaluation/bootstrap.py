"""Estimates how much a score depends on which pictures happen to be in a set: bootstrap over pictures.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13: percentile intervals.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from streamer.evaluation.coco_score import RECALLS, ClassMatches, Floats

#: Number of resamples. The ends of a 95 % interval of 500 vary by some hundredths of its width.
RESAMPLES = 500
#: Share of the resamples that an interval contains.
LEVEL = 0.95
_SEED = 20_260_101


def resample_counts(picture_count: int, resamples: int = RESAMPLES) -> npt.NDArray[np.int64]:
    """Return how often each resample has each picture, (resamples, pictures); the same in every call.

    All models of an evaluation use the same resamples, so that differences between them have intervals, too.
    """
    rng = np.random.default_rng(_SEED)
    return rng.multinomial(picture_count, np.full(picture_count, 1 / picture_count), size=resamples)


def mean_precisions(matches: Sequence[ClassMatches], counts: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return mAP50 and mAP50-95 of each resample, (resamples,) each; NaN for one without objects."""
    per_class = np.full((len(matches), len(counts), 10), np.nan)
    for index, found in enumerate(matches):
        for number, row in enumerate(counts):
            per_class[index, number] = average_precisions(found, row)
    known = ~np.isnan(per_class[..., 0])
    sums = np.where(known[..., None], per_class, 0).sum(axis=0)
    with np.errstate(invalid="ignore"):
        means = sums / known.sum(axis=0)[:, None]
    return means[:, 0], means.mean(axis=1)


def average_precisions(found: ClassMatches, counts: npt.NDArray[np.int64]) -> Floats:
    """Return the average precision (10,) at each IoU threshold, with each picture taken ``counts`` times.

    With counts of 1 these are the values of pycocotools. NaN if there are no objects.
    """
    objects = int((found.objects * counts).sum())
    if not objects:
        return np.full(10, np.nan)
    weights = counts[found.pictures]
    taken = weights > 0
    weights = weights[taken]
    right = np.cumsum(found.hits[:, taken] * weights, axis=1)
    total = np.cumsum(weights)
    precision = right / np.maximum(total, 1)
    # Precision never rises with recall: each value is the largest at this or a higher recall.
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    result = np.zeros(10)
    for level in range(10):
        at = np.searchsorted(right[level] / objects, RECALLS, side="left")
        reached = at[at < len(total)]
        result[level] = precision[level, reached].sum() / len(RECALLS)
    return result


def interval(values: Floats) -> tuple[float, float]:
    """Return the limits that contain `LEVEL` of the values; NaN if there are none."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def resampled_means(
    values: npt.NDArray[np.integer], of: npt.NDArray[np.bool_], counts: npt.NDArray[np.int64]
) -> Floats:
    """Return the mean of ``values`` over the pictures in ``of`` for each resample; NaN without any."""
    taken = counts[:, of]
    total = taken.sum(axis=1)
    mean: Floats = (taken * values[of]).sum(axis=1) / np.where(total > 0, total, np.nan)
    return mean
