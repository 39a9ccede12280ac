"""Computes the distances of Evidently between columns, in numpy. Pure."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]

WASSERSTEIN, JENSEN_SHANNON = "wasserstein", "jensenshannon"
#: Smallest standard deviation to divide by; the one of a constant column is 0.
MIN_DEVIATION = 1e-3
#: Greatest Jensen-Shannon distance: that of columns without a common category.
MAX_JENSEN_SHANNON = math.sqrt(math.log(2))
#: Share of a window's rows that the distance without outliers leaves out. Otherwise a single frame with a
#: lamp in the lens could begin a false episode: it is part of three windows, and in a column that hardly
#: varies it alone can push their distance over the threshold.
OUTLIER_SHARE = 0.025

#: A column needs this many finite values to be scored.
MIN_VALUES = 30


def wasserstein(reference: Floats, deviation: float, values: Floats) -> float:
    """Return the first Wasserstein distance in standard deviations of the reference.

    This is Evidently's `wasserstein`, W1 / max(std, 0.001). ``reference`` is sorted; both arrays hold finite
    numbers only. W1 is the mean distance of equal quantiles, taken at the middle of each step of the values.
    """
    return float(_quantile_gaps(reference, values).mean() / max(deviation, MIN_DEVIATION))


def wasserstein_without_outliers(reference: Floats, deviation: float, values: Floats) -> float:
    """Return the same distance without the most distant ``OUTLIER_SHARE`` of the values (rounded up).

    When the whole window has shifted, it hardly differs from the full distance. When only a few rows are
    unusual, it is the distance of all others.
    """
    gaps = np.sort(_quantile_gaps(reference, values))
    kept = gaps[: max(1, len(gaps) - math.ceil(OUTLIER_SHARE * len(gaps)))]
    return float(kept.mean() / max(deviation, MIN_DEVIATION))


def _quantile_gaps(reference: Floats, values: Floats) -> npt.NDArray[np.float64]:
    count = len(values)
    at = ((np.arange(count) + 0.5) / count * len(reference)).astype(np.intp)
    return np.asarray(np.abs(np.sort(values).astype(np.float64) - reference[at]), np.float64)


def jensen_shannon(first: Floats, second: Floats) -> float:
    """Return the Jensen-Shannon distance of two counts of the same categories, in [0, 0.833].

    It is the root of the divergence in nats, as in scipy and Evidently. Both are 1-D arrays of the same
    length. Returns NaN when all counts of one of them are 0.
    """
    if not first.sum() or not second.sum():
        return float("nan")
    p = first.astype(np.float64) / first.sum()
    q = second.astype(np.float64) / second.sum()
    middle = (p + q) / 2
    return float(np.sqrt(max(0.0, (_divergence(p, middle) + _divergence(q, middle)) / 2)))


def _divergence(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> float:
    nonzero = p > 0
    return float((p[nonzero] * np.log(p[nonzero] / q[nonzero])).sum())
