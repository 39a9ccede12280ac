"""What windows are measured by: a group's reference, or a part of its day, with its thresholds. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.drift.calibration import LEAST_VALUES, Calibration
from streamer.drift.columns import BAGS, NUMERIC, OF_MODEL
from streamer.drift.distance import (
    JENSEN_SHANNON,
    WASSERSTEIN,
    jensen_shannon,
    wasserstein,
    wasserstein_without_freaks,
)
from streamer.drift.table import Table, Vocabulary


@dataclass(slots=True)
class ColumnScore:
    """How far one column of a window lies from the reference."""

    name: str
    method: str
    threshold: float
    #: None where it cannot be said; ``skipped`` says why: `few_values` or `other_model`.
    score: float | None = None
    skipped: str = ""
    #: The same without a few freak rows; None for words.
    common: float | None = None
    #: Middle of the reference and of the window; None for words.
    medians: tuple[float, float] | None = None

    @property
    def ratio(self) -> float:
        """Score by threshold, of all rows or without freaks, whichever is less: 1 and more has drifted.

        0 where nothing can be said.
        """
        if self.score is None:
            return 0.0
        return min(self.score, self.score if self.common is None else self.common) / self.threshold


class Yardstick:
    """Scores windows against a table of reference rows."""

    def __init__(self, table: Table, calibration: Calibration) -> None:
        self.calibration = calibration
        #: Column to its finite values, sorted.
        self.numbers: dict[str, npt.NDArray[np.float32]] = {}
        self._deviations: dict[str, float] = {}
        for place, name in enumerate(NUMERIC):
            values = table.numbers[:, place]
            values = np.sort(values[np.isfinite(values)])
            self.numbers[name] = values
            self._deviations[name] = float(values.std(dtype=np.float64)) if len(values) else 0.0
        self.words = {name: Vocabulary.of(table.bags[name]) for name in BAGS}

    def score(self, window: Table, of_model: Table | None) -> list[ColumnScore]:
        """Return a score for each column.

        ``of_model`` holds the window's rows of the reference's model, on which the columns of predictions
        are measured; None when there are too few of them.
        """
        scores = []
        for name in (*NUMERIC, *BAGS):
            method = JENSEN_SHANNON if name in BAGS else WASSERSTEIN
            column = ColumnScore(name, method, self.calibration.thresholds[name])
            rows = of_model if name in OF_MODEL else window
            if rows is None:
                column.skipped = "other_model"
            elif name in BAGS:
                self._measure_words(column, rows)
            else:
                self._measure_numbers(column, rows)
            scores.append(column)
        return scores

    def _measure_numbers(self, column: ColumnScore, rows: Table) -> None:
        values = rows.numbers[:, NUMERIC.index(column.name)]
        values = values[np.isfinite(values)]
        known = self.numbers[column.name]
        if min(len(values), len(known)) < LEAST_VALUES:
            column.skipped = "few_values"
            return
        column.score = wasserstein(known, self._deviations[column.name], values)
        column.common = wasserstein_without_freaks(known, self._deviations[column.name], values)
        column.medians = float(np.median(known)), float(np.median(values))

    def _measure_words(self, column: ColumnScore, rows: Table) -> None:
        vocabulary = self.words[column.name]
        counts = vocabulary.matrix(rows.bags[column.name]).sum(axis=0)
        if min(counts.sum(), vocabulary.counts.sum()) < LEAST_VALUES:
            column.skipped = "few_values"
            return
        column.score = jensen_shannon(vocabulary.counts, counts)
