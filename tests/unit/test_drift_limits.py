"""Limits are learned from the reference: wide for slow scenes, and never below a floor in each unit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from streamer.drift.blocks import Blocks, Signals
from streamer.drift.change_points import estimate_change
from streamer.drift.day import Seen, hour_of, weekday_of
from streamer.drift.distances import MAX_JENSEN_SHANNON
from streamer.drift.group_limits import Limits
from streamer.drift.quantiles import fisher_f, student_t
from streamer.drift.reference import GroupReference, learn
from streamer.drift.rows import CATEGORY_COLUMNS, NUMERIC, Table
from streamer.drift.units import FLOORS
from streamer.drift.window_limits import DEFAULT_THRESHOLDS
from tests.helpers.drift_rows import START, World, rows

WINDOW_S, ALPHA = 1800.0, 0.01
#: Seconds between rows; the service takes a row every 5 s, but these tests cover whole days.
INTERVAL_S = 15.0
DAY = 5760
NOISE = NUMERIC.index("noise")


def learned(values: npt.NDArray[np.float32], begin: float = START) -> GroupReference:
    return learn(list(rows(values, begin, interval_s=INTERVAL_S)), WINDOW_S, ALPHA)[0]


def limits_of(reference: GroupReference) -> Limits:
    assert reference.limits is not None
    return reference.limits


@pytest.mark.parametrize(("p", "df"), [(1e-3, 3.0), (1e-5, 24.5), (8e-6, 1.0), (0.05, 500.0)])
def test_quantiles_of_students_t_are_those_of_scipy(p: float, df: float) -> None:
    expected = min(1000.0, float(stats.t.isf(p / 2, df)))
    assert student_t(p, df) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("p", "first", "second"), [(1e-5, 5, 40), (1e-3, 6, 12), (0.01, 4, 500)])
def test_quantiles_of_fishers_f_are_those_of_scipy(p: float, first: int, second: int) -> None:
    assert fisher_f(p, first, second) == pytest.approx(float(stats.f.isf(p, first, second)), rel=1e-6)


def test_slow_scenes_get_wider_limits_than_quick_ones() -> None:
    quick, slow = (limits_of(learned(World(5, slow=share).values(DAY))) for share in (0.02, 0.35))
    for length in (6, 24):
        assert np.median(slow.levels[length][:, NOISE]) > 1.4 * np.median(quick.levels[length][:, NOISE])


def test_more_days_make_tighter_limits() -> None:
    values = World(3, slow=0.35).values(7 * DAY)
    day, week = limits_of(learned(values[:DAY])), limits_of(learned(values))
    assert np.median(week.levels[24][:, NOISE]) < 0.8 * np.median(day.levels[24][:, NOISE])


def test_a_constant_column_has_the_floor_of_its_unit_and_does_not_set_the_others() -> None:
    values = World(5).values(DAY)
    whole = limits_of(learned(values))
    values[:, NUMERIC.index("aspect")] = 4 / 3
    values[:, NUMERIC.index("jpeg_bpp")] = np.nan
    reference = learned(values)
    odd = limits_of(reference)
    assert odd.window_limits(START)[NUMERIC.index("aspect")] == pytest.approx(1.2 * FLOORS["aspect"])
    assert np.isinf(odd.window_limits(START)[NUMERIC.index("jpeg_bpp")])
    place = NUMERIC.index("contrast")
    assert odd.window_limits(START)[place] == pytest.approx(whole.window_limits(START)[place], rel=1e-9)
    columns = {c.name: c for c in reference.at(START).score(*[Table.of(list(rows(values[:300])))] * 2)}
    assert columns["jpeg_bpp"].skipped
    assert columns["aspect"].ratio == 0


def test_no_threshold_is_above_the_largest_distance() -> None:
    values = World(5).values(DAY)
    reference = learned(values)
    found = reference.at(START).score(*[Table.of(list(rows(values[:300])))] * 2)
    for column in found[len(NUMERIC) :]:
        assert 0 < column.threshold < MAX_JENSEN_SHANNON or column.skipped == "too_variable", column.name
    assert found[NUMERIC.index("noise")].score is not None
    assert not found[len(NUMERIC) + CATEGORY_COLUMNS.index("resolution")].skipped


@pytest.mark.parametrize("hours", [0.5, 5, 9])
def test_a_short_reference_keeps_default_thresholds_and_says_so(hours: float) -> None:
    reference, _ = learn(list(rows(World(1).values(int(hours * 720)))), WINDOW_S, ALPHA)
    assert not reference.calibrated
    assert reference.at(START).thresholds == DEFAULT_THRESHOLDS


def test_neighbouring_times_of_day_have_similar_limits_and_expectations() -> None:
    values = World(3).values(3 * DAY)
    hours = np.arange(len(values)) * INTERVAL_S / 3600
    values[:, 0] += 20 * np.sin(2 * np.pi * hours / 24)
    reference = learned(values)
    night, day = (reference.at(START + hour * 3600) for hour in (18, 6))
    assert np.median(day.numbers["brightness"]) > np.median(night.numbers["brightness"]) + 30
    every = [reference.at(START + minute * 60).thresholds["brightness"] for minute in range(0, 1440, 30)]
    steps = np.abs(np.diff(np.log(every)))
    assert steps.max() < 0.5, "no edges between parts of the day"
    expected = limits_of(reference).expectation.at(np.asarray(START + 1800.0 * np.arange(48), np.float64))[
        :, 0
    ]
    assert np.abs(np.diff(expected)).max() < 6


def test_a_reference_says_what_it_has_not_seen() -> None:
    day = np.arange(START + 8 * 3600, START + 18 * 3600, 5.0)  # a Monday, in UTC
    seen = Seen.of(day)
    if hour_of(day[:1])[0] == 8:  # the tests run in UTC
        assert seen.gaps == ["18:00-08:00", "Saturday", "Sunday"]
        assert seen.covers(START + 86_400 + 10 * 3600, START + 86_400 + 10.5 * 3600)
        assert not seen.covers(START + 17.75 * 3600, START + 18.25 * 3600)
    assert weekday_of(day[:1])[0] == 0
    assert seen.knows_day(START + 86_400 + 43_200)
    assert not seen.knows_day(START + 5 * 86_400 + 43_200)
    assert Seen.of(np.arange(START, START + 7 * 86_400, 60.0)).gaps == []


def test_weeks_are_compared_by_weekday_where_that_says_more() -> None:
    values = World(3).values(14 * 2880)
    at = np.asarray(START + np.arange(len(values)) * 30.0, np.float64)
    sunday = weekday_of(at) == 6
    values[sunday, NOISE] += 10
    reference = learn(list(rows(values, interval_s=30.0)), WINDOW_S, ALPHA)[0]
    means = limits_of(reference).expectation.means
    assert len(means) == 7
    assert np.nanmean(means[6, :, NOISE]) > np.nanmean(means[2, :, NOISE]) + 5


def test_only_rows_of_the_newest_model_are_learnt() -> None:
    old, new = list(rows(World(1).values(500), model="v1:old")), World(1).values(300)
    reference, kept = learn(old + list(rows(new, START + 9000, model="v1:new")), WINDOW_S, ALPHA)
    assert (reference.model, len(kept)) == ("v1:new", 300)
    with pytest.raises(ValueError, match="50 rows of model 'v1:new'; needed are 100"):
        learn(old[:10] + list(rows(new[:50], START + 9000, model="v1:new")), WINDOW_S, ALPHA)


def test_steps_are_told_from_ramps() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 40)
    step, ramp = noise.copy(), noise.copy()
    step[25:] += 2
    ramp[20:] += np.arange(20) * 0.15
    assert estimate_change(step) == ("sudden", 25)
    found = estimate_change(ramp)
    assert found is not None
    assert found[0] == "gradual"
    assert 17 <= found[1] <= 24
    assert estimate_change(np.full(40, np.nan)) is None


def test_blocks_hold_means_and_shares_of_labels() -> None:
    found = list(rows(World(1).values(360)))
    table = Table.of(found)
    signals = Signals.of(table.categories["classes"])
    assert set(signals.labels) == {"cat", "dog"}
    blocks = Blocks.of(table.at, signals.values(table), 300, int(START // 300), 7)
    assert blocks.counts[:, NOISE].tolist() == [60] * 6 + [0]
    np.testing.assert_allclose(blocks.means[0, NOISE], table.numbers[:60, NOISE].mean(), rtol=1e-5)
    assert blocks.means[:6, -2:].sum(axis=1) == pytest.approx(1)
    longer = blocks.last(2).extended(Blocks.of(table.at, signals.values(table), 300, blocks.first + 9, 1))
    assert len(longer) == 5
    with pytest.raises(ValueError, match="overlap"):
        longer.extended(blocks)
