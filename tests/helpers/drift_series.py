"""Holds simulated rows of one stream as columns, and turns them into the rows of the drift monitor.

`drift_scene` draws the series, `drift_worlds` the scenes behind them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from streamer.drift.features import NO_CLASS
from streamer.drift.rows import NUMERIC, CategoryCounts, Row

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Start of simulated time, unix seconds: a Monday, 00:00 UTC.
START = 1_800_230_400.0
INTERVAL_S = 5.0
HOUR_S, DAY_S = 3600.0, 86_400.0


@dataclass(frozen=True, slots=True)
class Series:
    """Holds n rows in order of time.

    ``at`` is (n,) unix seconds, ``numbers`` (n, columns of ``NUMERIC``) with NaN for missing values,
    ``top`` (n,) the position of the top class in ``labels`` or -1, ``counts`` (n, labels) the boxes by class.
    """

    at: Floats
    numbers: npt.NDArray[np.float32]
    top: Ints
    counts: Ints
    labels: tuple[str, ...]
    resolution: str = "1280x720"
    source: str = "websocket"

    def __len__(self) -> int:
        return len(self.at)

    def column(self, name: str) -> npt.NDArray[np.float32]:
        """Return the values of a numeric column, (n,)."""
        return self.numbers[:, NUMERIC.index(name)]

    def between(self, begin: float, end: float) -> Series:
        """Return the rows with ``begin`` <= at < ``end``."""
        first, last = np.searchsorted(self.at, [begin, end])
        return self._part(slice(first, last))

    def every(self, step: int) -> Series:
        """Return every so many rows."""
        return self._part(slice(None, None, step))

    def joined(self, later: Series) -> Series:
        """Return these rows and later ones of the same camera."""
        return replace(
            later,
            at=np.concatenate([self.at, later.at]),
            numbers=np.concatenate([self.numbers, later.numbers]),
            top=np.concatenate([self.top, later.top]),
            counts=np.concatenate([self.counts, later.counts]),
        )

    def _part(self, part: slice) -> Series:
        return replace(
            self, at=self.at[part], numbers=self.numbers[part], top=self.top[part], counts=self.counts[part]
        )

    def rows(self, stream: str = "gate", model: str = "v1:ab") -> Iterator[Row]:
        """Yield the rows as the service's feature extractor makes them."""
        counts_of = functools.lru_cache(maxsize=None)(functools.partial(_category_counts, self.labels))
        names = (*self.labels, NO_CLASS)  # -1 is the last one
        tops, counts = self.top.tolist(), self.counts.tolist()
        for place, at in enumerate(self.at.tolist()):
            yield Row(
                at=at,
                stream=stream,
                session=0,
                model=model,
                numbers=self.numbers[place],
                top_class=names[tops[place]],
                resolution=self.resolution,
                source=self.source,
                classes=counts_of(tuple(counts[place])),
            )


def _category_counts(labels: tuple[str, ...], counts: tuple[int, ...]) -> CategoryCounts:
    pairs = [(label, count) for label, count in zip(labels, counts, strict=True) if count]
    return tuple(sorted(pairs, key=lambda pair: -pair[1]))
