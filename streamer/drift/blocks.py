"""Summarises rows in blocks of minutes: the mean and the number of values of each signal. Pure.

A signal is a numeric column, or the share of one label among a row's boxes. Tests for changes work on blocks:
the monitor keeps a day of them for each group, which takes as much memory as ten minutes of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.drift.rows import CLASSES, MODEL_DEPENDENT, NUMERIC, Categories, CategoryCounts, Table

Floats = npt.NDArray[np.float64]

#: A window has this many blocks.
BLOCKS_PER_WINDOW = 6
#: Blocks of long references are computed in parts of this many, a day of the default ones.
BLOCKS_AT_ONCE = 288
#: At most this many labels have a share of their own: the most frequent ones with at least this share.
MAX_LABELS, MIN_LABEL_SHARE = 8, 0.02


@dataclass(frozen=True, slots=True)
class Signals:
    """Names the signals of one group: all numeric columns, then the shares of ``labels``."""

    labels: tuple[str, ...]

    @classmethod
    def of(cls, classes: Sequence[CategoryCounts]) -> Signals:
        """Return the signals of a reference with this column of class counts."""
        known = Categories.of(classes)
        total = max(1.0, float(known.counts.sum()))
        pairs = sorted(zip(known.counts.tolist(), known.names, strict=False), reverse=True)[:MAX_LABELS]
        return cls(tuple(name for count, name in pairs if count >= MIN_LABEL_SHARE * total))

    def __len__(self) -> int:
        return len(NUMERIC) + len(self.labels)

    @property
    def columns(self) -> tuple[str, ...]:
        """The column that each signal belongs to."""
        return (*NUMERIC, *(CLASSES for _ in self.labels))

    @property
    def of_model(self) -> npt.NDArray[np.bool_]:
        """Which signals depend on the model."""
        return np.array([column in MODEL_DEPENDENT for column in self.columns], np.bool_)

    def values(self, table: Table) -> Floats:
        """Return the signals of each row, (rows, signals), NaN where a value is missing."""
        if not self.labels:
            return table.numbers.astype(np.float64)
        places = {name: place for place, name in enumerate(self.labels)}
        shares = np.full((len(table), len(self.labels)), np.nan)
        for number, counts in enumerate(table.categories[CLASSES]):
            total = sum(count for _, count in counts)
            if total:
                shares[number] = 0.0
                for name, count in counts:
                    if name in places:
                        shares[number, places[name]] = count / total
        return np.hstack([table.numbers, shares])


@dataclass(frozen=True, slots=True)
class Blocks:
    """Holds consecutive blocks; a block without values has count 0 and mean NaN.

    Block i covers the times from ``(first + i) * block_s`` on. ``means`` and ``counts`` are
    (blocks, signals).
    """

    first: int
    block_s: float
    means: Floats
    counts: Floats

    @classmethod
    def of(cls, at: Floats, values: Floats, block_s: float, first: int, count: int) -> Blocks:
        """Summarise rows, which are sorted by time, in ``count`` blocks; rows outside of them are ignored."""
        edges = np.searchsorted(at, (first + np.arange(count + 1)) * block_s)
        finite = np.isfinite(values)
        sums = _sums_before(np.where(finite, values, 0.0))
        numbers = _sums_before(finite.astype(np.float64))
        counts = numbers[edges[1:]] - numbers[edges[:-1]]
        totals = sums[edges[1:]] - sums[edges[:-1]]
        means = np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
        return cls(first, block_s, means, counts)

    @classmethod
    def of_table(cls, table: Table, signals: Signals, block_s: float) -> Blocks:
        """Summarise all rows of a table, in parts, so that memory holds the signals of one part alone."""
        begin, end = int(table.at[0] // block_s), int(table.at[-1] // block_s) + 1
        parts = []
        for first in range(begin, end, BLOCKS_AT_ONCE):
            count = min(BLOCKS_AT_ONCE, end - first)
            low, high = np.searchsorted(table.at, (first * block_s, (first + count) * block_s))
            part = table.take(np.arange(low, high))
            parts.append(cls.of(part.at, signals.values(part), block_s, first, count))
        means, counts = (np.vstack([getattr(part, name) for part in parts]) for name in ("means", "counts"))
        return cls(begin, block_s, means, counts)

    def __len__(self) -> int:
        return len(self.means)

    @property
    def ends(self) -> Floats:
        """The end of each block, unix seconds."""
        return np.asarray((self.first + 1 + np.arange(len(self))) * self.block_s, np.float64)

    def last(self, count: int) -> Blocks:
        """Return the last blocks, at most ``count``."""
        skipped = max(0, len(self) - count)
        return Blocks(self.first + skipped, self.block_s, self.means[skipped:], self.counts[skipped:])

    def relabelled(self, old: Signals, new: Signals) -> Blocks:
        """Return these blocks of the signals ``old`` as blocks of ``new``; new labels have no values."""
        places = [old.labels.index(label) if label in old.labels else -1 for label in new.labels]
        labels = np.array([*range(len(NUMERIC)), *(len(NUMERIC) + place for place in places)], np.intp)
        unknown = np.array([False] * len(NUMERIC) + [place < 0 for place in places])
        means = np.where(unknown, np.nan, self.means[:, labels])
        counts = np.where(unknown, 0.0, self.counts[:, labels])
        return Blocks(self.first, self.block_s, means, counts)

    def extended(self, later: Blocks) -> Blocks:
        """Return these blocks followed by later ones, with empty blocks in a gap between them."""
        gap = later.first - self.first - len(self)
        if gap < 0:
            raise ValueError("blocks overlap")
        width = self.means.shape[1]
        means = np.vstack([self.means, np.full((gap, width), np.nan), later.means])
        counts = np.vstack([self.counts, np.zeros((gap, width)), later.counts])
        return Blocks(self.first, self.block_s, means, counts)


def aligned(values: Floats, count: int) -> Floats:
    """Return the last ``count`` rows, with rows of NaN before them if there are fewer."""
    missing = np.full((max(0, count - len(values)), values.shape[1]), np.nan)
    return np.vstack([missing, values[-count:]])


def mean_square(values: Floats) -> Floats:
    """Return the mean of the squares of the finite values of each signal, NaN without one."""
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    total = (np.where(finite, values, 0.0) ** 2).sum(axis=0)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan), np.float64)


def greatest(values: Floats) -> Floats:
    """Return the greatest absolute finite value of each signal, 0 without one."""
    return np.asarray(np.abs(np.where(np.isfinite(values), values, 0.0)).max(axis=0, initial=0.0))


def quantile(values: Floats, share: float) -> Floats:
    """Return a quantile of the absolute finite values of each signal, NaN without one.

    It is interpolated linearly, as by np.nanquantile, which is slow along the first axis.
    """
    ordered = np.sort(np.abs(values), axis=0)  # NaN last
    held = np.isfinite(ordered).sum(axis=0)
    if not len(ordered):
        return np.full(values.shape[1], np.nan)
    place = share * np.maximum(held - 1, 0)
    low = place.astype(np.intp)
    high = np.minimum(low + 1, np.maximum(held - 1, 0))
    columns = np.arange(values.shape[1])
    start = ordered[low, columns]
    return np.asarray(np.where(held > 0, start + (place - low) * (ordered[high, columns] - start), np.nan))


def _sums_before(values: Floats) -> Floats:
    return np.vstack([np.zeros((1, values.shape[1])), values.cumsum(axis=0)])
