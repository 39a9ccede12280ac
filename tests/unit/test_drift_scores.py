"""The numpy engine computes the distances that scipy computes for Evidently; odd columns do not stop it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from streamer.drift.distances import SortedColumns, jensen_shannon, wasserstein
from streamer.drift.reference import ReferenceScorer
from streamer.drift.rows import NUMERIC, OTHER, Categories, Row, Table
from tests.helpers.drift_rows import World, rows


def distance(known: np.ndarray, deviation: float, values: np.ndarray) -> tuple[float, float]:
    """Return the distance of one column, and that without outliers; a second column has no values."""
    known, values = (np.column_stack([each, np.full(len(each), np.nan)]) for each in (known, values))
    found = wasserstein(SortedColumns.of(known), np.array([deviation, 1.0]), SortedColumns.of(values))
    assert all(math.isnan(each[1]) for each in found)
    return float(found[0][0]), float(found[1][0])


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_wasserstein_is_that_of_scipy_in_deviations(shift: float) -> None:
    from scipy import stats  # noqa: PLC0415 - imported slowly

    rng = np.random.default_rng(3)
    known, values = rng.gamma(2, 3, 3000), rng.gamma(2, 3, 360) + shift
    expected = stats.wasserstein_distance(known, values) / known.std()
    assert distance(known, float(known.std()), values)[0] == pytest.approx(expected, abs=0.005)


def test_a_constant_column_that_moves_is_far_away() -> None:
    still = np.full(500, 4.0)
    assert distance(still, 0.0, still[:100])[0] == 0
    assert distance(still, 0.0, still[:100] + 1)[0] == pytest.approx(1000)


@pytest.mark.parametrize("counts", [([5, 3, 2], [1, 1, 8]), ([1, 0, 9], [0, 4, 6]), ([3, 3, 3], [1, 1, 1])])
def test_jensen_shannon_is_that_of_scipy(counts: tuple[list[int], list[int]]) -> None:
    from scipy.spatial import distance  # noqa: PLC0415 - imported slowly

    first, second = (np.array(values, np.float64) for values in counts)
    expected = distance.jensenshannon(first, second)
    assert jensen_shannon(first, second) == pytest.approx(expected, abs=1e-7)


def test_nothing_counted_is_no_distance() -> None:
    assert math.isnan(jensen_shannon(np.zeros(2), np.ones(2)))


def test_rare_and_new_words_are_one() -> None:
    categories = Categories.of([(("cat", 99),), (("dog", 100),), (("newt", 1),)])
    assert categories.names == ("cat", "dog")
    assert categories.counts.tolist() == [99, 100, 1]
    assert categories.count([(("newt", 2), ("cat", 1), (OTHER, 1))]).tolist() == [1, 0, 3]


def scored(window: list[Row], known: list[Row]) -> dict[str, float | None]:
    table = Table.of(window)
    return {c.name: c.score for c in ReferenceScorer(Table.of(known), None, 0.0).score(table, table)}


def test_columns_without_values_are_left_out_and_say_so() -> None:
    known, window = World(1).values(500), World(2).values(200)
    window[:, NUMERIC.index("conf_mean")] = np.nan
    known[:480, NUMERIC.index("jpeg_bpp")] = np.nan
    table = Table.of(list(rows(window)))
    columns = ReferenceScorer(Table.of(list(rows(known))), None, 0.0).score(table, table)
    assert {c.name for c in columns if c.skipped} == {"conf_mean", "jpeg_bpp"}
    assert all(c.ratio == 0 for c in columns if c.skipped)


def test_a_new_class_moves_the_words_alone() -> None:
    known = list(rows(World(1).values(500)))
    window = [dataclasses.replace(row, classes=(("bird", 1),)) for row in known[:200]]
    scores = scored(window, known)
    assert (scores["classes"] or 0) > 0.8
    assert scores["top_class"] == pytest.approx(0, abs=0.1)


def test_one_row_is_no_error() -> None:
    known = list(rows(World(1).values(200)))
    assert set(scored(known[:1], known).values()) == {None}


def test_without_rows_of_its_model_predictions_are_not_compared() -> None:
    table = Table.of(list(rows(World(1).values(200))))
    columns = ReferenceScorer(table, None, 0.0).score(table, None)
    assert {c.name for c in columns if c.skipped == "other_model"} >= {"n_boxes", "top_class", "classes"}
    assert all(c.score is not None for c in columns if c.name in ("brightness", "resolution"))


def test_a_few_outlier_rows_are_far_off_and_no_drift() -> None:
    rng = np.random.default_rng(5)
    reference = rng.normal(0, 0.01, 5000)
    quiet = rng.normal(0, 0.01, 289)
    outliers = quiet.copy()
    outliers[[10, 11, 12, 200]] = 1.0
    deviation = float(reference.std())
    full, without = distance(reference, deviation, outliers)
    assert full > 1
    assert without < 0.2
    full, without = distance(reference, deviation, quiet + 0.02)
    assert without == pytest.approx(full, rel=0.05)
    assert distance(reference, deviation, quiet[:1])[1] >= 0


def test_sorted_columns_leave_out_missing_values() -> None:
    columns = SortedColumns.of(np.array([[3.0, np.nan], [1.0, np.inf], [2.5, 7.0], [np.nan, np.nan]]))
    assert columns.column(0).tolist() == [1.0, 2.5, 3.0]
    assert columns.medians().tolist() == [2.5, 7.0]
    assert columns.deviations() == pytest.approx([np.std([1.0, 2.5, 3.0]), 0.0])
    assert np.isnan(SortedColumns.of(np.zeros((0, 2))).medians()).all()
