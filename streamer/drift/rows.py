"""Defines the row of features of one observation of a stream, tables of rows, and category counts. Pure.

The columns that are named here are those of references, windows and the drift status.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Increases when a column changes its meaning. Rows cannot be compared with a reference of another version.
FEATURE_VERSION = 1

IMAGE = (
    "brightness",
    "contrast",
    "dark_frac",
    "bright_frac",
    "saturation",
    "colorfulness",
    "log_sharpness",
    "noise",
    "jpeg_bpp",
    "aspect",
    "log_mpix",
    "frame_diff",
)
PREDICTION = (
    "n_boxes",
    "n_low",
    "no_box",
    "conf_mean",
    "conf_max",
    "conf_min",
    "frac_low",
    "area_med",
    "area_max",
    "log_aspect_med",
    "cx_med",
    "cy_med",
    "edge_frac",
    "n_classes",
    "overlap_max",
)
NUMERIC = IMAGE + PREDICTION
#: Columns with exactly one category in each row.
CATEGORICAL = ("top_class", "resolution", "source")
#: Column that counts the labels of all boxes of a row.
CLASSES = "classes"
#: All columns that hold categories.
CATEGORY_COLUMNS = (*CATEGORICAL, CLASSES)
ALL = NUMERIC + CATEGORY_COLUMNS
#: Columns that depend on the model as much as on the image. They are compared only with rows of the same
#: model.
MODEL_DEPENDENT = frozenset((*PREDICTION, "top_class", CLASSES))

#: Categories rarer than this share of the reference are counted together as ``OTHER``.
MIN_CATEGORY_SHARE = 0.01
OTHER = "__other__"

#: Pairs of a category and the number of times that it occurred.
CategoryCounts = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """Holds one observation; ``numbers`` is float32 in the order of ``NUMERIC``, NaN for a missing value."""

    #: Arrival of the frame, unix seconds.
    at: float
    #: Name of the stream; ``session`` distinguishes streams of the same name.
    stream: str
    session: int
    #: Version and digest of the model, for example `v1:0123456789ab`.
    model: str
    numbers: npt.NDArray[np.float32]
    top_class: str
    resolution: str
    source: str
    classes: CategoryCounts


def model_key(version: str, sha256: str) -> str:
    """Return the name of a model as rows store it."""
    return f"{version}:{sha256[:12]}"


@functools.lru_cache(maxsize=1024)
def _single(name: str) -> CategoryCounts:
    """Return the counts of one category; empty if it is missing."""
    return ((name, 1),) if name else ()


@dataclass(frozen=True, slots=True)
class Table:
    """Holds n rows in time order: ``at`` (n,) unix seconds, ``numbers`` (n, 27), ``categories`` by column."""

    at: npt.NDArray[np.float64]
    numbers: npt.NDArray[np.float32]
    categories: dict[str, list[CategoryCounts]]

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Table:
        """Return a table of the rows, sorted by time."""
        rows = sorted(rows, key=lambda row: row.at)
        # Equal counts share one object: by themselves they would take more memory than the numbers.
        shared: dict[CategoryCounts, CategoryCounts] = {}
        return cls(
            np.array([row.at for row in rows], np.float64),
            np.array([row.numbers for row in rows], np.float32).reshape(len(rows), len(NUMERIC)),
            {column: [_single(getattr(row, column)) for row in rows] for column in CATEGORICAL}
            | {CLASSES: [shared.setdefault(row.classes, row.classes) for row in rows]},
        )

    @classmethod
    def joined(cls, tables: Sequence[Table]) -> Table:
        """Return one table of several that follow each other in time."""
        return cls(
            np.concatenate([table.at for table in tables]),
            np.concatenate([table.numbers for table in tables]),
            {name: [row for table in tables for row in table.categories[name]] for name in CATEGORY_COLUMNS},
        )

    def __len__(self) -> int:
        return len(self.at)

    def take(self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Table:
        """Return some of the rows, selected by a mask or by positions."""
        positions = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
        categories = {column: [counts[i] for i in positions] for column, counts in self.categories.items()}
        return Table(self.at[positions], self.numbers[positions], categories)

    def thinned(self, max_rows: int) -> Table:
        """Return at most ``max_rows`` rows, evenly spaced over the table."""
        if len(self) <= max_rows:
            return self
        return self.take(np.linspace(0, len(self) - 1, max_rows).round().astype(np.intp))


@dataclass(frozen=True, slots=True)
class Categories:
    """Holds the categories of one reference column with their counts; the last count is that of ``OTHER``.

    A category that the reference does not know is counted as ``OTHER``.
    """

    names: tuple[str, ...]
    counts: npt.NDArray[np.float64]

    @classmethod
    def of(cls, column: Sequence[CategoryCounts]) -> Categories:
        """Return the categories with a share of at least 1 %; all others are counted as ``OTHER``."""
        totals: Counter[str] = Counter()
        for row, times in Counter(column).items():
            for name, count in row:
                totals[name] += times * count
        return cls.of_totals(totals)

    @classmethod
    def of_totals(cls, totals: Mapping[str, int]) -> Categories:
        """Return the same from the count of each category."""
        total = sum(totals.values())
        least = MIN_CATEGORY_SHARE * total
        names = tuple(sorted(name for name, count in totals.items() if count and count >= least))
        kept = [totals[name] for name in names]
        return cls(names, np.array([*kept, total - sum(kept)], np.float64))

    def count(self, column: Sequence[CategoryCounts]) -> npt.NDArray[np.float64]:
        """Return how often a column has each category, (names + 1,); the last is ``OTHER``."""
        places = {name: place for place, name in enumerate(self.names)}
        counts = np.zeros(len(self.names) + 1)
        for row, times in Counter(column).items():  # most rows equal others
            for name, count in row:
                counts[places.get(name, len(self.names))] += times * count
        return counts
