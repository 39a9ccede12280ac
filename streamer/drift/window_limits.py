"""Derives thresholds of a window's distances, which Evidently scores, from the limits of a reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from streamer.drift.day import DAY_S, SEASON_S, Floats
from streamer.drift.distances import (
    MAX_JENSEN_SHANNON,
    MIN_VALUES,
    SortedColumns,
    jensen_shannon,
    wasserstein,
)
from streamer.drift.group_limits import Limits
from streamer.drift.rows import CATEGORY_COLUMNS, NUMERIC, Categories, Table
from streamer.drift.unknown_days import UNJUDGED

#: Thresholds of a reference that is too short, in standard deviations and in Jensen-Shannon distance.
DEFAULT_THRESHOLD, DEFAULT_CATEGORY_THRESHOLD = 0.5, 0.2
DEFAULT_THRESHOLDS = dict.fromkeys(NUMERIC, DEFAULT_THRESHOLD) | dict.fromkeys(
    CATEGORY_COLUMNS, DEFAULT_CATEGORY_THRESHOLD
)
#: Smallest threshold of a Jensen-Shannon distance. From the greatest on, a column is too variable to be
#: judged.
LEAST_CATEGORY_THRESHOLD, GREATEST_CATEGORY_THRESHOLD = 0.1, 0.9 * MAX_JENSEN_SHANNON
#: At most this many windows of the reference are compared with the rest of it.
MAX_WINDOWS = 120
#: Margin on the greatest distance of categories in the reference; wider if there is one day alone.
CATEGORY_MARGIN, ONE_DAY_MARGIN = 2.0, 2.5


class ChoosesRows(Protocol):
    """Chooses the rows of a reference that a time is compared with."""

    def at(self, unix_s: float, keep: npt.NDArray[np.bool_] | None = None) -> Table:
        """Return those rows."""
        ...


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """Holds what a window's distances may be.

    A Wasserstein distance is at least as large as the distance of the means, which has limits by the time of
    day. ``excess`` is by how much it exceeds that when nothing has changed, in the column's unit, because the
    rows of half an hour are distributed otherwise than those of several days.
    """

    limits: Limits
    excess: Mapping[str, float]
    categories: Mapping[str, float]

    def at(self, unix_s: float) -> dict[str, float]:
        """Return the limits by column: numeric ones in the column's unit; inf: not judged."""
        means = self.limits.numeric_window_limits(unix_s)
        found = {name: means[name] + self.excess[name] for name in NUMERIC} | dict(self.categories)
        if not self.limits.seen.knows_day(unix_s):
            found |= dict.fromkeys(UNJUDGED, math.inf)
        return found


def learn_window_limits(
    limits: Limits, table: Table, near: ChoosesRows, thin_at: Floats, window_s: float
) -> WindowLimits:
    """Compare windows of a reference, ``table``, with rows of its other days: ``near``, at ``thin_at``."""
    seasonal = float(table.at[-1] - table.at[0]) >= SEASON_S
    starts = np.arange(table.at[0], table.at[-1] - window_s, window_s)
    if len(starts) > MAX_WINDOWS:
        starts = starts[np.linspace(0, len(starts) - 1, MAX_WINDOWS).round().astype(np.intp)]
    excess: dict[str, list[float]] = {name: [] for name in NUMERIC}
    distances: dict[str, list[float]] = {name: [] for name in CATEGORY_COLUMNS}
    for start in starts.tolist():
        low, high = np.searchsorted(table.at, (start, start + window_s))
        gap = DAY_S / 2 if seasonal else window_s
        middle = start + window_s / 2
        others = near.at(middle, np.abs(thin_at - middle) > gap)
        if high - low < MIN_VALUES or len(others) < MIN_VALUES:
            continue
        for place, found in enumerate(_excess(others.numbers, table.numbers[low:high])):
            if np.isfinite(found):
                excess[NUMERIC[place]].append(float(found))
        for name in CATEGORY_COLUMNS:
            known = Categories.of(others.categories[name])
            counts = known.count(table.categories[name][low:high])
            if min(counts.sum(), known.counts.sum()) >= MIN_VALUES:
                distances[name].append(jensen_shannon(known.counts, counts))
    return WindowLimits(
        limits,
        {name: float(np.quantile(found, 0.95)) if found else 0.0 for name, found in excess.items()},
        {name: _category_limit(found, seasonal=seasonal) for name, found in distances.items()},
    )


def _excess(known: npt.NDArray[np.float32], values: npt.NDArray[np.float32]) -> Floats:
    """Return by how much the distance of each column exceeds that of the means; NaN with few values."""
    columns, window = SortedColumns.of(known), SortedColumns.of(values)
    distances, _ = wasserstein(columns, np.ones(known.shape[1]), window)
    enough = np.minimum(columns.counts, window.counts) >= MIN_VALUES
    means = [
        np.nansum(each.values, axis=0, dtype=np.float64) / np.maximum(each.counts, 1)
        for each in (columns, window)
    ]
    return np.where(enough, np.maximum(0.0, distances - np.abs(means[0] - means[1])), np.nan)


def _category_limit(found: list[float], *, seasonal: bool) -> float:
    if not found:
        return DEFAULT_CATEGORY_THRESHOLD
    values = np.array(found)
    greatest = float(values.max()) * (CATEGORY_MARGIN if seasonal else ONE_DAY_MARGIN)
    limit = max(LEAST_CATEGORY_THRESHOLD, greatest, float(values.mean() + 8 * values.std()))
    return limit if limit < GREATEST_CATEGORY_THRESHOLD else float("inf")
