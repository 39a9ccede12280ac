"""Holds the reference of each group of streams, learns it from rows, and scores windows against it. Pure.

`reference_document` defines the file format, `learned_reference` reads and writes the file.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streamer.drift.blocks import BLOCKS_PER_WINDOW
from streamer.drift.day import SEASON_S, Floats, hour_of, hours_apart
from streamer.drift.distances import (
    JENSEN_SHANNON,
    MIN_DEVIATION,
    MIN_VALUES,
    WASSERSTEIN,
    SortedColumns,
    jensen_shannon,
    wasserstein,
)
from streamer.drift.group_limits import Evidence, Limits
from streamer.drift.rows import CATEGORY_COLUMNS, MODEL_DEPENDENT, NUMERIC, Categories, Row, Table
from streamer.drift.window_limits import DEFAULT_THRESHOLDS, WindowLimits, learn_window_limits

#: Name of the reference for all groups that have no reference of their own.
ANY = "*"
#: A window needs this many rows to be scored.
MIN_ROWS = 100
#: Limits need rows in this many windows that do not overlap.
MIN_WINDOWS = 20
#: Most rows that represent the reference of a group, and of all groups together.
MAX_ROWS, MAX_TOTAL_ROWS = 5000, 40_000
#: Rows of other days count if their time of day is less than this away, the closer the more of them.
NEAR_H = 2.0
#: Evidence of longer means and of steps counts only if the window itself is at least this far from the
#: reference.
LEAST_DISTANCE, LEAST_CATEGORY_DISTANCE = 0.2, 0.05


@dataclass(slots=True)
class ColumnScore:
    """Holds the distance of one column of a window from the reference."""

    name: str
    method: str
    threshold: float
    #: None when there is no score; ``skipped`` gives the reason: `few_values`, `other_model`, `too_variable`.
    score: float | None = None
    skipped: str = ""
    #: The score without outlier rows; None for category columns.
    without_outliers: float | None = None
    #: Median of the reference and of the window; None for category columns.
    medians: tuple[float, float] | None = None
    #: What longer means and sudden changes say; None if they say nothing.
    evidence: Evidence | None = None

    @property
    def ratio(self) -> float:
        """How far the column is from the reference; from 1 on it has drifted.

        This is the score divided by the threshold, the lower of those with and without outliers, or the ratio
        of the longer means and sudden changes, if that is more and the score does not contradict it.
        """
        alone = self._score_ratio
        if self.evidence is None or self.evidence.ratio <= alone:
            return alone
        least = LEAST_CATEGORY_DISTANCE if self.method == JENSEN_SHANNON else LEAST_DISTANCE
        if self.score is not None and self.score < least:
            return max(alone, min(self.evidence.ratio, 0.99))
        return self.evidence.ratio

    @property
    def basis(self) -> str:
        """What the ratio was measured with: `window`, or the basis of the evidence."""
        return self.evidence.basis if self.evidence and self.ratio > self._score_ratio else "window"

    @property
    def _score_ratio(self) -> float:
        if self.score is None:
            return 0.0
        lower = self.score if self.without_outliers is None else min(self.score, self.without_outliers)
        return lower / self.threshold


class ReferenceScorer:
    """Scores windows against a table of reference rows."""

    def __init__(self, table: Table, limits: WindowLimits | None, unix_s: float) -> None:
        """Score by ``limits`` at a time, or by default thresholds if they are None."""
        self._columns = SortedColumns.of(table.numbers)
        self._deviations = self._columns.deviations()
        #: The finite values of each column, sorted.
        self.numbers = {name: self._columns.column(place) for place, name in enumerate(NUMERIC)}
        self.categories = {name: Categories.of(table.categories[name]) for name in CATEGORY_COLUMNS}
        self._medians = self._columns.medians().tolist()
        self.calibrated = limits is not None
        self.thresholds = self._thresholds_by(limits, unix_s)

    def at(self, limits: WindowLimits | None, unix_s: float) -> ReferenceScorer:
        """Return a scorer against the same rows by limits at another time."""
        other = copy.copy(self)
        other.thresholds = self._thresholds_by(limits, unix_s)
        return other

    def _thresholds_by(self, limits: WindowLimits | None, unix_s: float) -> dict[str, float]:
        thresholds = dict(DEFAULT_THRESHOLDS)
        if limits is not None:
            scales = dict(zip(NUMERIC, np.maximum(self._deviations, MIN_DEVIATION).tolist(), strict=True))
            for name, limit in limits.at(unix_s).items():
                thresholds[name] = limit / scales.get(name, 1.0)
        return thresholds

    def score(self, window: Table, of_model: Table | None) -> list[ColumnScore]:
        """Return a score for each column.

        ``of_model`` holds those rows of the window that come from the reference's model, or is None when
        there are too few. Only these rows score the columns that depend on the model.
        """
        every = self._score_numbers(window)
        own = every if of_model is window or of_model is None else self._score_numbers(of_model)
        scores = []
        for name in (*NUMERIC, *CATEGORY_COLUMNS):
            method = JENSEN_SHANNON if name in CATEGORY_COLUMNS else WASSERSTEIN
            column = ColumnScore(name, method, self.thresholds[name])
            rows = of_model if name in MODEL_DEPENDENT else window
            if rows is None:
                column.skipped = "other_model"
            elif not math.isfinite(column.threshold):
                column.skipped = "too_variable"
            elif name in CATEGORY_COLUMNS:
                self._score_categories(column, rows)
            else:
                numbers = own if name in MODEL_DEPENDENT else every
                self._set_numbers(column, NUMERIC.index(name), numbers)
            scores.append(column)
        return scores

    def _score_numbers(self, rows: Table) -> _Numbers:
        found = SortedColumns.of(rows.numbers)
        distances, without_outliers = wasserstein(self._columns, self._deviations, found)
        few = np.minimum(found.counts, self._columns.counts) < MIN_VALUES
        return _Numbers(few.tolist(), distances.tolist(), without_outliers.tolist(), found.medians().tolist())

    def _set_numbers(self, column: ColumnScore, place: int, found: _Numbers) -> None:
        if found.few[place]:
            column.skipped = "few_values"
            return
        column.score, column.without_outliers = found.distances[place], found.without_outliers[place]
        column.medians = self._medians[place], found.medians[place]

    def _score_categories(self, column: ColumnScore, rows: Table) -> None:
        known = self.categories[column.name]
        counts = known.count(rows.categories[column.name])
        if min(counts.sum(), known.counts.sum()) < MIN_VALUES:
            column.skipped = "few_values"
            return
        column.score = jensen_shannon(known.counts, counts)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Holds the scores and medians of the numeric columns of one window, and which have too few values."""

    few: list[bool]
    distances: list[float]
    without_outliers: list[float]
    medians: list[float]


class NearRows:
    """Chooses the rows of a reference that a time is compared with.

    With a reference of two days or more, these are the rows around the same time of day, on either side with
    triangular weights: half the rows an hour away, none two hours away. There are no edges between parts of
    the day.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        #: Whether rows are chosen by the time of day.
        self.seasonal = len(table) > 0 and float(table.at[-1] - table.at[0]) >= SEASON_S
        self._hours: Floats = hour_of(table.at)
        # Evenly spread over (0, 1], so that the chosen share of the rows falls with their distance.
        self._reach = NEAR_H * (1 - (np.arange(len(table)) * (math.sqrt(5) - 1) / 2) % 1)

    def at(self, unix_s: float, keep: npt.NDArray[np.bool_] | None = None) -> Table:
        """Return the rows to compare that time with; of those that ``keep`` selects."""
        chosen = np.ones(len(self._table), np.bool_) if keep is None else keep
        if self.seasonal:
            apart = hours_apart(self._hours, float(hour_of(np.array([unix_s]))[0]))
            near = chosen & (apart <= self._reach)
            if near.sum() >= MIN_ROWS:
                chosen = near
        return self._table if chosen.all() else self._table.take(chosen)


@dataclass(frozen=True, slots=True)
class GroupReference:
    """Holds the reference of one group."""

    #: Name of the model as in its rows; empty if it is not known, which matches every model.
    model: str
    #: The rows that windows are compared with.
    table: Table
    span_h: float
    #: None for a reference that is too short to learn limits from it.
    limits: Limits | None
    windows: WindowLimits | None
    _near: NearRows = field(init=False, repr=False)
    #: The scorer of a reference of less than two days: the same rows at all times, so they are sorted once.
    _scorers: list[ReferenceScorer] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_near", NearRows(self.table))

    @property
    def rows(self) -> int:
        """Number of its rows."""
        return len(self.table)

    @property
    def calibrated(self) -> bool:
        """Whether thresholds were learned from its rows."""
        return self.windows is not None

    def at(self, unix_s: float) -> ReferenceScorer:
        """Return the scorer for a window around that time."""
        if self._near.seasonal:
            return ReferenceScorer(self._near.at(unix_s), self.windows, unix_s)
        if not self._scorers:
            self._scorers.append(ReferenceScorer(self.table, self.windows, unix_s))
        return self._scorers[0].at(self.windows, unix_s)


@dataclass(frozen=True, slots=True)
class Reference:
    """Holds the references of all groups, from one file."""

    groups: Mapping[str, GroupReference]
    #: When it was learned, in ISO 8601 and UTC; empty if the file does not say it.
    created: str
    sha256: str

    def of(self, group: str) -> GroupReference | None:
        """Return the reference of a group or the one for all others; None when there is neither."""
        return self.groups.get(group) or self.groups.get(ANY)


def newest_model(rows: Sequence[Row]) -> str:
    """Return the most frequent model of the newest tenth of the rows."""
    newest = sorted(rows, key=lambda row: row.at)[-max(1, len(rows) // 10) :]
    return Counter(row.model for row in newest).most_common(1)[0][0] if newest else ""


def learn(
    rows: Sequence[Row], window_s: float, alpha: float, max_rows: int = MAX_ROWS
) -> tuple[GroupReference, list[Row]]:
    """Return a group's reference with its limits, and the rows to store, at most ``max_rows``.

    Only rows of the newest model are used. ``alpha`` is the number of false episodes per day that the limits
    allow. They are learned before the rows are thinned out, because a mean must be of as many rows as it will
    be later. Without enough rows there are default thresholds. Raises ValueError if there are fewer than
    ``MIN_ROWS`` rows.
    """
    model = newest_model(rows)
    rows = sorted((row for row in rows if row.model == model), key=lambda row: row.at)
    kept = thin_rows(rows, max_rows)
    return learn_table(model, Table.of(rows), kept, window_s, alpha), kept


def learn_table(
    model: str, table: Table, kept: Sequence[Row], window_s: float, alpha: float
) -> GroupReference:
    """Return a group's reference that is learned from ``table``, all of one model.

    ``kept`` are the rows that it stores, some of those of the table. Raises ValueError if the table has fewer
    than ``MIN_ROWS`` rows.
    """
    if len(table) < MIN_ROWS:
        raise ValueError(f"{len(table)} rows of model {model!r}; needed are {MIN_ROWS}")
    span_s = float(table.at[-1] - table.at[0])
    thin = Table.of(kept)
    limits = windows = None
    if _count_windows(table, window_s) >= MIN_WINDOWS:
        limits = Limits.learn(table, window_s / BLOCKS_PER_WINDOW, alpha)
        windows = learn_window_limits(limits, table, NearRows(thin), thin.at, window_s)
    return GroupReference(model, thin, span_s / 3600, limits, windows)


def _count_windows(table: Table, window_s: float) -> int:
    """Return the number of windows that hold enough rows, when the windows do not overlap."""
    _, held = np.unique(np.floor((table.at - table.at[0]) / window_s), return_counts=True)
    return int((held >= MIN_ROWS / 2).sum())


def thin_rows(rows: Sequence[Row], most: int) -> list[Row]:
    """Return at most that many of the rows, evenly spread."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / max(1, most - 1))] for place in range(most)]
