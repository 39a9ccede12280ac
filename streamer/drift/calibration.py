"""Thresholds from the reference itself: how far do its own windows lie from the rest of it? Pure.

Video rows are no independent draws: a quarter of an hour with a busy street differs from the day, and no
table of p-values knows by how much. Contiguous blocks of the reference do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from streamer.drift.columns import BAGS, NUMERIC
from streamer.drift.distance import jensen_shannon, wasserstein
from streamer.drift.table import Table, Vocabulary

#: Fewer finite values than this say nothing of a column.
LEAST_VALUES = 30
#: Fewer rows than this say nothing of a window.
LEAST_ROWS = 100
MAX_BLOCKS = 150
#: Blocks overlap by two thirds at most; so many, and so many windows side by side, make a calibration.
LEAST_BLOCKS, LEAST_WINDOWS = 20, 20
#: Rows that stand for the reference.
MAX_ROWS = 5000
#: A shift smaller than this is not worth a word, however sure: standard deviations, and distance of words.
FLOOR, WORD_FLOOR = 0.2, 0.1
#: Thresholds where the reference cannot be calibrated.
PLAIN, WORD_PLAIN = 0.5, 0.2
#: Columns that hardly vary between blocks must not set the common factor by their one odd block.
LEAST_TYPICAL, WORD_LEAST_TYPICAL = 0.05, 0.025
#: Buckets of the day, of four hours of local time each, where the reference spans three days.
BUCKETS = 6
SEASON_S = 72 * 3600.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Threshold of each column, and how many blocks they come from; `plain` ones come from none."""

    thresholds: dict[str, float]
    blocks: int = 0

    @property
    def calibrated(self) -> bool:
        """Whether the thresholds come from the reference."""
        return self.blocks > 0


def plain() -> Calibration:
    """Return the thresholds that fit nothing in particular."""
    return Calibration(dict.fromkeys(NUMERIC, PLAIN) | dict.fromkeys(BAGS, WORD_PLAIN))


def bucket_of(unix_s: float) -> int:
    """Return which part of the day that is, local time."""
    return time.localtime(unix_s).tm_hour * BUCKETS // 24


def calibrate(table: Table, window_s: float, alpha: float, bucket: int | None = None) -> Calibration | None:
    """Return thresholds that a window passes with a chance of ``alpha``, all columns together.

    Each block of the reference is measured against the reference without it and its neighbours: T_jb. With
    q_j their mean over the blocks and M_b the greatest T_jb / q_j of a block, thr_j = max(q_j c, floor)
    where c is the 1 - alpha quantile of M, taken as log-normal. ``bucket`` restricts both sides to a part of
    the day. None where there are too few blocks, or they lie too close together.
    """
    if bucket is not None:
        table = table.take(np.array([bucket_of(at) == bucket for at in table.at], np.bool_))
    starts = _starts(table, window_s)
    if len(starts) < LEAST_BLOCKS or _windows(table, window_s) < LEAST_WINDOWS:
        return None
    distances = _Distances(table, window_s)
    rows = [row for start in starts if (row := distances.of_block(start)) is not None]
    if len(rows) < LEAST_BLOCKS:
        return None
    found = np.array(rows)
    seen = np.isfinite(found)
    counts = seen.sum(axis=0)
    typical = np.where(seen, found, 0).sum(axis=0) / np.maximum(counts, 1)
    least = np.array([LEAST_TYPICAL] * len(NUMERIC) + [WORD_LEAST_TYPICAL] * len(BAGS))
    greatest = np.where(seen, found / np.maximum(typical, least), 0).max(axis=1)
    logs = np.log(np.maximum(greatest, 1e-3))
    factor = max(1.0, float(np.exp(logs.mean() + NormalDist().inv_cdf(1 - alpha) * logs.std(ddof=1))))
    floors = np.array([FLOOR] * len(NUMERIC) + [WORD_FLOOR] * len(BAGS))
    thresholds = np.maximum(typical * factor, floors)
    usual = plain().thresholds
    # A column that was missing in most blocks has not been measured.
    return Calibration(
        {
            name: float(thresholds[place]) if counts[place] >= LEAST_BLOCKS else usual[name]
            for place, name in enumerate((*NUMERIC, *BAGS))
        },
        len(rows),
    )


def _starts(table: Table, window_s: float) -> list[float]:
    """Return where blocks begin that hold enough rows, at most ``MAX_BLOCKS``."""
    if len(table) < LEAST_ROWS:
        return []
    first, last = float(table.at[0]), float(table.at[-1])
    starts = np.arange(first, last - window_s + 1e-6, window_s / 3)
    held = np.searchsorted(table.at, starts + window_s) - np.searchsorted(table.at, starts)
    # Half of a block's usual rows: one across a gap says less than a window will.
    enough = starts[held >= max(LEAST_ROWS, np.median(held[held > 0]) / 2 if (held > 0).any() else 0)]
    if len(enough) > MAX_BLOCKS:
        enough = enough[np.linspace(0, len(enough) - 1, MAX_BLOCKS).round().astype(np.intp)]
    return [float(start) for start in enough]


def _windows(table: Table, window_s: float) -> int:
    """Return how many windows side by side hold enough rows."""
    _, held = np.unique(np.floor((table.at - table.at[0]) / window_s), return_counts=True)
    # A part of the day begins and ends within a window.
    return int((held >= LEAST_ROWS / 2).sum())


class _Distances:
    """Measures blocks of a table against the rest of it."""

    def __init__(self, table: Table, window_s: float) -> None:
        self._table = table
        self._window_s = window_s
        self._thin = table.thinned(MAX_ROWS)
        # Sorted once: a mask in this order leaves the rest sorted.
        self._order = np.argsort(self._thin.numbers, axis=0)
        vocabularies = [Vocabulary.of(table.bags[column]) for column in BAGS]
        self._sums = [
            np.concatenate([np.zeros((1, len(v.counts))), v.matrix(table.bags[column]).cumsum(axis=0)])
            for v, column in zip(vocabularies, BAGS, strict=True)
        ]

    def of_block(self, start: float) -> list[float] | None:
        """Return the distance in each column, NaN where it cannot be said; None when too little is left."""
        end = start + self._window_s
        near = (start - self._window_s, end + self._window_s)
        keep = (self._thin.at < near[0]) | (self._thin.at >= near[1])
        low, high = np.searchsorted(self._table.at, (start, end))
        if keep.sum() < max(LEAST_ROWS, min(high - low, len(self._thin) // 2)):
            return None
        block = self._table.numbers[low:high]
        out = np.searchsorted(self._table.at, near)
        numeric = [self._number(place, block[:, place], keep) for place in range(len(NUMERIC))]
        words = [
            jensen_shannon(sums[-1] - (sums[out[1]] - sums[out[0]]), sums[high] - sums[low])
            for sums in self._sums
        ]
        return numeric + words

    def _number(self, place: int, values: npt.NDArray[np.float32], keep: npt.NDArray[np.bool_]) -> float:
        order = self._order[:, place]
        rest = self._thin.numbers[order[keep[order]], place]
        rest = rest[np.isfinite(rest)]
        values = values[np.isfinite(values)]
        if len(rest) < LEAST_VALUES or len(values) < LEAST_VALUES:
            return float("nan")
        return wasserstein(rest, float(rest.std(dtype=np.float64)), values)
