"""Holds the reference of each group of streams, learns it from rows, and scores windows against it. Pure.

`reference_document` defines the file format, `learned_reference` reads and writes the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streamer.drift.calibration import (
    DAY_BUCKETS,
    JENSEN_SHANNON,
    MAX_ROWS,
    MIN_ROWS,
    MIN_VALUES,
    SEASON_S,
    WASSERSTEIN,
    Calibration,
    calibrate,
    day_bucket,
    default_calibration,
    jensen_shannon,
    wasserstein,
    wasserstein_without_outliers,
)
from streamer.drift.rows import CATEGORY_COLUMNS, MODEL_DEPENDENT, NUMERIC, Categories, Row, Table

#: Name of the reference for all groups that have no reference of their own.
ANY = "*"
#: Most rows that a reference keeps, all groups together.
MAX_TOTAL_ROWS = 40_000


@dataclass(slots=True)
class ColumnScore:
    """Holds the distance of one column of a window from the reference."""

    name: str
    method: str
    threshold: float
    #: None when there is no score; ``skipped`` gives the reason, `few_values` or `other_model`.
    score: float | None = None
    skipped: str = ""
    #: The score without outlier rows; None for category columns.
    without_outliers: float | None = None
    #: Median of the reference and of the window; None for category columns.
    medians: tuple[float, float] | None = None

    @property
    def ratio(self) -> float:
        """Score divided by threshold; a column with a ratio of 1 or more has drifted. 0 without a score.

        Uses the lower of the scores with and without outliers.
        """
        if self.score is None:
            return 0.0
        lower = self.score if self.without_outliers is None else min(self.score, self.without_outliers)
        return lower / self.threshold


class ReferenceScorer:
    """Scores windows against a table of reference rows."""

    def __init__(self, table: Table, calibration: Calibration) -> None:
        self.calibration = calibration
        #: The finite values of each column, sorted.
        self.numbers: dict[str, npt.NDArray[np.float32]] = {}
        self._deviations: dict[str, float] = {}
        for place, name in enumerate(NUMERIC):
            values = table.numbers[:, place]
            values = np.sort(values[np.isfinite(values)])
            self.numbers[name] = values
            self._deviations[name] = float(values.std(dtype=np.float64)) if len(values) else 0.0
        self.categories = {name: Categories.of(table.categories[name]) for name in CATEGORY_COLUMNS}

    def score(self, window: Table, of_model: Table | None) -> list[ColumnScore]:
        """Return a score for each column.

        ``of_model`` holds those rows of the window that come from the reference's model, or is None when
        there are too few. Only these rows score the columns that depend on the model.
        """
        scores = []
        for name in (*NUMERIC, *CATEGORY_COLUMNS):
            method = JENSEN_SHANNON if name in CATEGORY_COLUMNS else WASSERSTEIN
            column = ColumnScore(name, method, self.calibration.thresholds[name])
            rows = of_model if name in MODEL_DEPENDENT else window
            if rows is None:
                column.skipped = "other_model"
            elif name in CATEGORY_COLUMNS:
                self._score_categories(column, rows)
            else:
                self._score_numbers(column, rows)
            scores.append(column)
        return scores

    def _score_numbers(self, column: ColumnScore, rows: Table) -> None:
        values = rows.numbers[:, NUMERIC.index(column.name)]
        values = values[np.isfinite(values)]
        known = self.numbers[column.name]
        if min(len(values), len(known)) < MIN_VALUES:
            column.skipped = "few_values"
            return
        deviation = self._deviations[column.name]
        column.score = wasserstein(known, deviation, values)
        column.without_outliers = wasserstein_without_outliers(known, deviation, values)
        column.medians = float(np.median(known)), float(np.median(values))

    def _score_categories(self, column: ColumnScore, rows: Table) -> None:
        known = self.categories[column.name]
        counts = known.count_matrix(rows.categories[column.name]).sum(axis=0)
        if min(counts.sum(), known.counts.sum()) < MIN_VALUES:
            column.skipped = "few_values"
            return
        column.score = jensen_shannon(known.counts, counts)


@dataclass(frozen=True, slots=True)
class GroupReference:
    """Holds the reference of one group."""

    #: Name of the model as in its rows; empty if it is not known, which matches every model.
    model: str
    rows: int
    span_h: float
    whole: ReferenceScorer
    #: Scorers by bucket of the day, for the buckets that have enough rows for a calibration of their own.
    seasons: Mapping[int, ReferenceScorer] = field(default_factory=dict)

    def at(self, unix_s: float) -> ReferenceScorer:
        """Return the scorer for a window around that time."""
        return self.seasons.get(day_bucket(unix_s), self.whole)


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
    """Return a group's reference with its thresholds, and the rows to store, at most ``max_rows``.

    Only rows of the newest model are used. Thresholds are computed before the rows are thinned out, because a
    block must hold as many rows as a window will. Without enough rows for a calibration, the thresholds are
    the default ones. Raises ValueError if there are fewer than ``MIN_ROWS`` rows.
    """
    model = newest_model(rows)
    rows = sorted((row for row in rows if row.model == model), key=lambda row: row.at)
    if len(rows) < MIN_ROWS:
        raise ValueError(f"{len(rows)} rows of model {model!r}; needed are {MIN_ROWS}")
    table = Table.of(rows)
    span_s = float(table.at[-1] - table.at[0])
    positions = range(len(rows)) if len(rows) <= max_rows else _evenly(len(rows), max_rows)
    kept = [rows[position] for position in positions]
    thin = Table.of(kept)
    seasons = {}
    if span_s >= SEASON_S - window_s:
        for bucket in range(DAY_BUCKETS):
            own = calibrate(table, window_s, alpha, bucket)
            if own is not None:
                seasons[bucket] = ReferenceScorer(season_rows(thin, bucket), own)
    whole = ReferenceScorer(thin, calibrate(table, window_s, alpha) or default_calibration())
    return GroupReference(model, len(kept), span_s / 3600, whole, seasons), kept


def season_rows(table: Table, bucket: int) -> Table:
    """Return the rows of one bucket of the day."""
    return table.take(np.array([day_bucket(at) == bucket for at in table.at], np.bool_))


def _evenly(count: int, chosen: int) -> list[int]:
    return [round(place * (count - 1) / (chosen - 1)) for place in range(chosen)]
