"""Rows side by side, in time order, with their words counted against a vocabulary. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.drift.columns import BAGS, NUMERIC, Bag, Row

#: Words rarer than this share of the reference are one word: a new one is no end of the world.
LEAST_SHARE = 0.01
OTHER = "__other__"


@dataclass(frozen=True, slots=True)
class Table:
    """n rows: ``at`` (n,) unix seconds, ``numbers`` (n, 27), ``bags`` by column, each a list of n."""

    at: npt.NDArray[np.float64]
    numbers: npt.NDArray[np.float32]
    bags: dict[str, list[Bag]]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Table:
        """Return the rows in time order."""
        rows = sorted(rows, key=lambda row: row.at)
        return cls(
            np.array([row.at for row in rows], np.float64),
            np.array([row.numbers for row in rows], np.float32).reshape(len(rows), len(NUMERIC)),
            {column: [row.bag(column) for row in rows] for column in BAGS},
        )

    def __len__(self) -> int:
        return len(self.at)

    def take(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Table:
        """Return some of the rows, by a mask or by positions."""
        positions = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
        bags = {column: [words[i] for i in positions] for column, words in self.bags.items()}
        return Table(self.at[positions], self.numbers[positions], bags)

    def thinned(self, most: int) -> Table:
        """Return at most so many rows, evenly over their order."""
        if len(self) <= most:
            return self
        return self.take(np.linspace(0, len(self) - 1, most).round().astype(np.intp))


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words of a column that are told apart, and how often the reference has each; `other` comes last."""

    words: tuple[str, ...]
    counts: npt.NDArray[np.float64]

    @classmethod
    def of(cls, bags: Sequence[Bag]) -> Vocabulary:
        """Return the words with a share of 1 % and more."""
        counted: Counter[str] = Counter()
        for bag in bags:
            for word, count in bag:
                counted[word] += count
        total = counted.total()
        words = tuple(sorted(word for word, count in counted.items() if count >= LEAST_SHARE * total))
        kept = [counted[word] for word in words]
        return cls(words, np.array([*kept, total - sum(kept)], np.float64))

    def matrix(self, bags: Sequence[Bag]) -> npt.NDArray[np.float64]:
        """Return the counts of each bag, (n, words + 1)."""
        places = {word: place for place, word in enumerate(self.words)}
        counts = np.zeros((len(bags), len(self.words) + 1))
        for row, bag in enumerate(bags):
            for word, count in bag:
                counts[row, places.get(word, len(self.words))] += count
        return counts
