"""Computes distances between columns, and thresholds for them from blocks of the reference itself. Pure.

The distances are the metrics of Evidently, implemented in numpy. Thresholds cannot come from a table of
p-values: rows of a video are not independent, and a busy quarter of an hour differs from the rest of the day.
This module therefore measures on contiguous blocks of the reference how much such a period differs.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from streamer.drift.rows import CATEGORY_COLUMNS, NUMERIC, Categories, Table

Floats = npt.NDArray[np.float32] | npt.NDArray[np.float64]

WASSERSTEIN, JENSEN_SHANNON = "wasserstein", "jensenshannon"
#: Smallest standard deviation to divide by; the one of a constant column is 0.
MIN_DEVIATION = 1e-3
#: Share of a window's rows that the distance without outliers leaves out. Otherwise a single frame with a
#: lamp in the lens could begin a false episode: it is part of three windows, and in a column that hardly
#: varies it alone can push their distance over the threshold.
OUTLIER_SHARE = 0.025

#: A column needs this many finite values to be scored.
MIN_VALUES = 30
#: A window needs this many rows to be scored.
MIN_ROWS = 100
MAX_BLOCKS = 150
#: A calibration needs this many blocks, which overlap by two thirds, and this many windows without overlap.
MIN_BLOCKS, MIN_WINDOWS = 20, 20
#: Most rows that represent the reference.
MAX_ROWS = 5000
#: Smallest thresholds, in standard deviations and in Jensen-Shannon distance: a smaller shift is not worth a
#: report, however certain it is.
THRESHOLD_FLOOR, CATEGORY_THRESHOLD_FLOOR = 0.2, 0.1
#: Thresholds of a reference that cannot be calibrated.
DEFAULT_THRESHOLD, DEFAULT_CATEGORY_THRESHOLD = 0.5, 0.2
#: Lower bounds of the typical distances. Without them, one unusual block of a column that hardly varies would
#: determine the factor that all columns share.
MIN_TYPICAL, MIN_CATEGORY_TYPICAL = 0.05, 0.025
#: A reference that spans three days is also calibrated by the time of day, in buckets of four hours of local
#: time.
DAY_BUCKETS = 6
SEASON_S = 72 * 3600.0


# -- distances -------------------------------------------------------------------------------------------


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


# -- thresholds ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Calibration:
    """Holds the threshold of each column."""

    thresholds: dict[str, float]
    #: Number of blocks of the reference that the thresholds were computed from; 0 for default thresholds.
    blocks: int = 0

    @property
    def calibrated(self) -> bool:
        """Whether the thresholds were derived from the reference."""
        return self.blocks > 0


def default_calibration() -> Calibration:
    """Return the thresholds for references that cannot be calibrated."""
    categories = dict.fromkeys(CATEGORY_COLUMNS, DEFAULT_CATEGORY_THRESHOLD)
    return Calibration(dict.fromkeys(NUMERIC, DEFAULT_THRESHOLD) | categories)


def day_bucket(unix_s: float) -> int:
    """Return the bucket of the day in local time, 0 to ``DAY_BUCKETS`` - 1."""
    return time.localtime(unix_s).tm_hour * DAY_BUCKETS // 24


def calibrate(table: Table, window_s: float, alpha: float, bucket: int | None = None) -> Calibration | None:
    """Return thresholds; a window without drift exceeds at least one of them with probability ``alpha``.

    T_jb is the distance in column j between block b of the reference and the reference without b and its
    neighbours; q_j is the mean of T_jb over the blocks. M_b is the greatest T_jb / q_j of block b over the
    columns, with q_j raised to ``MIN_TYPICAL`` or ``MIN_CATEGORY_TYPICAL`` where it is smaller. The threshold
    of column j is max(q_j c, floor), where c is the 1 - alpha quantile of M, which is assumed to be
    log-normal; c is at least 1.

    ``bucket`` restricts blocks and reference to one part of the day. Returns None when there are too few
    blocks or they cover too little time.
    """
    if bucket is not None:
        table = table.take(np.array([day_bucket(at) == bucket for at in table.at], np.bool_))
    starts = _block_starts(table, window_s)
    if len(starts) < MIN_BLOCKS or _count_windows(table, window_s) < MIN_WINDOWS:
        return None
    distances = _BlockDistances(table, window_s)
    rows = [row for start in starts if (row := distances.of_block(start)) is not None]
    if len(rows) < MIN_BLOCKS:
        return None
    found = np.array(rows)
    finite = np.isfinite(found)
    counts = finite.sum(axis=0)
    typical = np.where(finite, found, 0).sum(axis=0) / np.maximum(counts, 1)
    min_typical = np.array([MIN_TYPICAL] * len(NUMERIC) + [MIN_CATEGORY_TYPICAL] * len(CATEGORY_COLUMNS))
    greatest = np.where(finite, found / np.maximum(typical, min_typical), 0).max(axis=1)
    logs = np.log(np.maximum(greatest, 1e-3))
    factor = max(1.0, float(np.exp(logs.mean() + NormalDist().inv_cdf(1 - alpha) * logs.std(ddof=1))))
    floors = np.array([THRESHOLD_FLOOR] * len(NUMERIC) + [CATEGORY_THRESHOLD_FLOOR] * len(CATEGORY_COLUMNS))
    thresholds = np.maximum(typical * factor, floors)
    defaults = default_calibration().thresholds
    # A column that is missing in most blocks keeps its default threshold.
    return Calibration(
        {
            name: float(thresholds[place]) if counts[place] >= MIN_BLOCKS else defaults[name]
            for place, name in enumerate((*NUMERIC, *CATEGORY_COLUMNS))
        },
        len(rows),
    )


def _block_starts(table: Table, window_s: float) -> list[float]:
    """Return the start times of blocks with enough rows, at most ``MAX_BLOCKS``."""
    if len(table) < MIN_ROWS:
        return []
    first, last = float(table.at[0]), float(table.at[-1])
    starts = np.arange(first, last - window_s + 1e-6, window_s / 3)
    held = np.searchsorted(table.at, starts + window_s) - np.searchsorted(table.at, starts)
    # A block across a gap has fewer rows than a window will have, so a block needs half the median number.
    enough = starts[held >= max(MIN_ROWS, np.median(held[held > 0]) / 2 if (held > 0).any() else 0)]
    if len(enough) > MAX_BLOCKS:
        enough = enough[np.linspace(0, len(enough) - 1, MAX_BLOCKS).round().astype(np.intp)]
    return [float(start) for start in enough]


def _count_windows(table: Table, window_s: float) -> int:
    """Return the number of windows that hold enough rows, when the windows do not overlap."""
    _, held = np.unique(np.floor((table.at - table.at[0]) / window_s), return_counts=True)
    # Half the rows suffice, because a bucket of the day may begin or end in the middle of a window.
    return int((held >= MIN_ROWS / 2).sum())


class _BlockDistances:
    """Measures blocks of a table against the rest of the table."""

    def __init__(self, table: Table, window_s: float) -> None:
        self._table = table
        self._window_s = window_s
        self._thin = table.thinned(MAX_ROWS)
        # Sort once: the values that a mask selects in this order are sorted, too.
        self._order = np.argsort(self._thin.numbers, axis=0)
        columns = [table.categories[name] for name in CATEGORY_COLUMNS]
        known = [Categories.of(column) for column in columns]
        #: For each category column, the counts of all rows before each row.
        self._sums = [
            np.concatenate([np.zeros((1, len(k.counts))), k.count_matrix(column).cumsum(axis=0)])
            for k, column in zip(known, columns, strict=True)
        ]

    def of_block(self, start: float) -> list[float] | None:
        """Return the distance of each column, NaN where it is undefined; None when too few rows are left."""
        end = start + self._window_s
        near = (start - self._window_s, end + self._window_s)
        keep = (self._thin.at < near[0]) | (self._thin.at >= near[1])
        low, high = np.searchsorted(self._table.at, (start, end))
        if keep.sum() < max(MIN_ROWS, min(high - low, len(self._thin) // 2)):
            return None
        block = self._table.numbers[low:high]
        out = np.searchsorted(self._table.at, near)
        numeric = [self._number(place, block[:, place], keep) for place in range(len(NUMERIC))]
        categories = [
            jensen_shannon(sums[-1] - (sums[out[1]] - sums[out[0]]), sums[high] - sums[low])
            for sums in self._sums
        ]
        return numeric + categories

    def _number(self, place: int, values: npt.NDArray[np.float32], keep: npt.NDArray[np.bool_]) -> float:
        order = self._order[:, place]
        rest = self._thin.numbers[order[keep[order]], place]
        rest = rest[np.isfinite(rest)]
        values = values[np.isfinite(values)]
        if len(rest) < MIN_VALUES or len(values) < MIN_VALUES:
            return float("nan")
        return wasserstein(rest, float(rest.std(dtype=np.float64)), values)
