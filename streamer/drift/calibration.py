"""Distances between columns, and the thresholds that a reference derives from its own windows. Pure.

The distances are the metrics of Evidently, in numpy. Thresholds cannot come from a table of p-values: rows of
a video are not independent, and a busy quarter of an hour differs from the rest of the day. How much such a
period differs is measured on contiguous blocks of the reference.
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
#: Smallest standard deviation to divide by: a constant column has none of its own.
MIN_DEVIATION = 1e-3
#: Share of a window's rows that may be outliers. A single frame with a lamp in the lens is part of three
#: windows; in a column that hardly varies, its distance is many thresholds, which is enough for a false
#: episode.
OUTLIER_SHARE = 0.025

#: A column needs this many finite values to be scored.
MIN_VALUES = 30
#: A window needs this many rows to be scored.
MIN_ROWS = 100
MAX_BLOCKS = 150
#: A calibration needs this many blocks, which overlap by two thirds, and this many windows without overlap.
MIN_BLOCKS, MIN_WINDOWS = 20, 20
#: Rows that represent the reference.
MAX_ROWS = 5000
#: Smallest thresholds, in standard deviations and in Jensen-Shannon distance: a smaller shift is not worth a
#: report, however certain it is.
THRESHOLD_FLOOR, CATEGORY_THRESHOLD_FLOOR = 0.2, 0.1
#: Thresholds of a reference that cannot be calibrated.
DEFAULT_THRESHOLD, DEFAULT_CATEGORY_THRESHOLD = 0.5, 0.2
#: Smallest typical distances. Without them, a column that hardly varies between blocks would set the factor
#: that is common to all columns by its one unusual block.
MIN_TYPICAL, MIN_CATEGORY_TYPICAL = 0.05, 0.025
#: A reference that spans three days is also calibrated by the time of day, in buckets of four hours of local
#: time.
DAY_BUCKETS = 6
SEASON_S = 72 * 3600.0


# -- distances -------------------------------------------------------------------------------------------


def wasserstein(reference: Floats, deviation: float, values: Floats) -> float:
    """Return the first Wasserstein distance in standard deviations of the reference.

    Evidently's `wasserstein`, W1 / max(std, 0.001). ``reference`` is sorted; both arrays hold finite numbers
    only. W1 is the mean distance of equal quantiles, taken at the middle of each step of the values.
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
    length; NaN when one of them counts nothing.
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
    """The threshold of each column, and the number of reference blocks behind them; 0: default thresholds."""

    thresholds: dict[str, float]
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
    """Return thresholds that a window without drift exceeds with probability ``alpha``, in any of its
    columns.

    T_jb is the distance of block b of the reference from the reference without b and its neighbours, in
    column j. With q_j its mean over the blocks and M_b the greatest T_jb / q_j of a block, thr_j = max(q_j c,
    floor), where c is the 1 - alpha quantile of M, assumed to be log-normal. ``bucket`` restricts blocks and
    reference to one part of the day. Returns None when there are too few blocks or they cover too little
    time.
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
    # A block across a gap has fewer rows than a window will have, so blocks need half the usual number.
    enough = starts[held >= max(MIN_ROWS, np.median(held[held > 0]) / 2 if (held > 0).any() else 0)]
    if len(enough) > MAX_BLOCKS:
        enough = enough[np.linspace(0, len(enough) - 1, MAX_BLOCKS).round().astype(np.intp)]
    return [float(start) for start in enough]


def _count_windows(table: Table, window_s: float) -> int:
    """Return the number of windows without overlap that hold enough rows."""
    _, held = np.unique(np.floor((table.at - table.at[0]) / window_s), return_counts=True)
    # Half the rows suffice, because a bucket of the day begins and ends within a window.
    return int((held >= MIN_ROWS / 2).sum())


class _BlockDistances:
    """Measures blocks of a table against the rest of the table."""

    def __init__(self, table: Table, window_s: float) -> None:
        self._table = table
        self._window_s = window_s
        self._thin = table.thinned(MAX_ROWS)
        # Sorted once: applying a mask in this order keeps the rest sorted.
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
