"""Computes the distances of Evidently between columns, in numpy. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class SortedColumns:
    """Holds columns of numbers, each sorted: ``values`` is (rows, columns), missing ones NaN, last."""

    values: Floats
    #: Finite values of each column, (columns,).
    counts: npt.NDArray[np.intp]

    @classmethod
    def of(cls, numbers: Floats) -> SortedColumns:
        """Sort columns of (rows, columns); what is not finite is missing."""
        finite = np.isfinite(numbers)
        return cls(np.sort(np.where(finite, numbers, np.nan), axis=0), finite.sum(axis=0))

    def column(self, place: int) -> Floats:
        """Return the finite values of a column, sorted."""
        return self.values[: self.counts[place], place]

    def medians(self) -> npt.NDArray[np.float64]:
        """Return the median of each column, NaN without a value."""
        if not len(self.values):
            return np.full(len(self.counts), np.nan)
        places = np.arange(len(self.counts))
        low, high = np.maximum(self.counts - 1, 0) // 2, np.minimum(self.counts // 2, len(self.values) - 1)
        return np.asarray(
            (self.values[low, places].astype(np.float64) + self.values[high, places]) / 2, np.float64
        )

    def deviations(self) -> npt.NDArray[np.float64]:
        """Return the standard deviation of each column, 0 without a value."""
        known = np.isfinite(self.values)
        values = np.where(known, self.values, 0.0).astype(np.float64)
        counts = np.maximum(self.counts, 1)
        gaps = np.where(known, values - values.sum(axis=0) / counts, 0.0)
        return np.asarray(np.sqrt((gaps**2).sum(axis=0) / counts), np.float64)


def wasserstein(
    reference: SortedColumns, deviations: npt.NDArray[np.float64], window: SortedColumns
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the first Wasserstein distances of all columns in standard deviations of the reference.

    The first are Evidently's `wasserstein`, W1 / max(std, 0.001). W1 is the mean distance of equal quantiles,
    taken at the middle of each step of the window's values. The second leave out the most distant
    ``OUTLIER_SHARE`` of the values (rounded up): when the whole window has shifted, they hardly differ; when
    a few rows are unusual, they are the distances of all others. All arrays are (columns,), NaN without
    values.
    """
    rows, columns = window.values.shape
    if not rows or not len(reference.values):
        return np.full(columns, np.nan), np.full(columns, np.nan)
    counts = np.maximum(window.counts, 1)
    at = ((np.arange(rows)[:, None] + 0.5) / counts * reference.counts).astype(np.intp)
    at = np.minimum(at, np.maximum(reference.counts - 1, 0))
    gaps = np.abs(window.values.astype(np.float64) - np.take_along_axis(reference.values, at, axis=0))
    gaps = np.sort(gaps, axis=0)  # NaN last
    sums = np.nancumsum(gaps, axis=0)
    places = np.arange(columns)
    kept = np.maximum(1, counts - np.ceil(OUTLIER_SHARE * counts).astype(np.intp))
    scales = np.maximum(deviations, MIN_DEVIATION)
    known = (window.counts > 0) & (reference.counts > 0)
    full, without = sums[-1] / counts, sums[kept - 1, places] / kept
    return np.where(known, full / scales, np.nan), np.where(known, without / scales, np.nan)


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
