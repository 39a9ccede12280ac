"""The simulated cameras do what their worlds and faults say, and a trial counts episodes and delays right."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator

import numpy as np
import pytest

from streamer.drift.rows import NUMERIC, Table
from tests.helpers.drift_faults import (
    CONFIDENCE,
    COVERED,
    DIRT,
    EXPOSURE,
    FOCUS,
    FROZEN,
    KINDS,
    MIX,
    MOVED,
    SceneRecording,
    record_world,
)
from tests.helpers.drift_gaussian import GAUSSIANS, GaussianRecording, record_gaussian
from tests.helpers.drift_replay import replay
from tests.helpers.drift_series import DAY_S, HOUR_S, Series
from tests.helpers.drift_trial import Outcome, Summary, Trial, poisson_bound, run
from tests.helpers.drift_worlds import WORLDS

#: Columns that are shares.
SHARES = ("dark_frac", "bright_frac", "saturation", "no_box", "frac_low", "edge_frac", "overlap_max")


@functools.cache
def world(name: str) -> SceneRecording | GaussianRecording:
    draw = record_gaussian if name in GAUSSIANS else record_world
    return draw(name, 7, 1.0, 0.5)


@pytest.mark.parametrize("name", [*WORLDS, *GAUSSIANS])
def test_rows_are_of_the_monitors_kind_and_in_the_ranges_of_its_columns(name: str) -> None:
    series = world(name).series
    part = series.between(series.at[-2000], series.at[-1])
    table = Table.of(list(part.rows()))
    np.testing.assert_array_equal(table.numbers, part.numbers)
    assert np.all(np.diff(series.at) > 0)
    for column in SHARES:
        values = series.column(column)
        assert 0 <= np.nanmin(values) <= np.nanmax(values) <= 1, column
    boxes = series.column("n_boxes")
    np.testing.assert_array_equal(boxes, series.counts.sum(axis=1))
    for column in NUMERIC:
        assert np.isfinite(series.column(column)[boxes > 0]).all(), column
    assert np.isnan(series.column("conf_mean")[boxes == 0]).all()
    assert (series.column("conf_min")[boxes > 0] >= 0.5).all()


def test_a_seed_draws_the_same_rows_again_and_another_seed_others() -> None:
    first, again, other = (record_world("day_night", seed, 0.1, 0.1).series for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.numbers, again.numbers)
    np.testing.assert_array_equal(first.counts, again.counts)
    assert not np.array_equal(first.numbers, other.numbers)


def test_at_night_the_camera_sees_by_infrared_and_by_day_in_colours() -> None:
    series = world("day_night").series
    hours = (series.at % DAY_S) / HOUR_S
    night, noon = (hours < 3), (hours > 11) & (hours < 13)
    assert series.column("saturation")[night].max() < 0.02
    assert series.column("saturation")[noon].min() > 0.15
    assert series.column("brightness")[night].mean() < series.column("brightness")[noon].mean() - 15
    switches = np.abs(np.diff(series.column("saturation"))) > 0.1
    assert switches.sum() in (2, 3, 4)  # of one and a half days


def test_the_daytime_world_has_rows_from_8_to_18_h_alone() -> None:
    series = world("daytime").series
    hours = (series.at % DAY_S) / HOUR_S
    assert 7.99 < hours.min() < 8.01
    assert 17.98 < hours.max() < 18.01


@pytest.mark.parametrize("name", ["stationary", "gaussian"])
@pytest.mark.parametrize(
    ("kind", "column", "least"),
    [
        (COVERED, "contrast", -10.0),
        (COVERED, "n_boxes", -0.2),
        (FOCUS, "log_sharpness", -1.0),
        (CONFIDENCE, "conf_mean", -0.05),
        (DIRT, "contrast", -4.0),
        (FROZEN, "frame_diff", -1.0),
    ],
)
def test_a_fault_lowers_its_columns(name: str, kind: str, column: str, least: float) -> None:
    before, after = fault(name, kind)
    assert np.nanmean(after.column(column)) - np.nanmean(before.column(column)) < least


@pytest.mark.parametrize("name", ["stationary", "gaussian"])
def test_other_faults_change_what_they_say(name: str) -> None:
    before, after = fault(name, MOVED)
    shift = [
        np.nanmedian(after.column(axis)) - np.nanmedian(before.column(axis)) for axis in ("cx_med", "cy_med")
    ]
    assert 0.02 < math.hypot(*shift) < 0.15
    before, after = fault(name, EXPOSURE)
    assert abs(after.column("brightness").mean() - before.column("brightness").mean()) > 20
    before, after = fault(name, MIX)
    assert np.argmax(after.counts.sum(axis=0)) != np.argmax(before.counts.sum(axis=0))


def fault(name: str, kind: str) -> tuple[Series, Series]:
    """Return four hours without and with a fault that began at their beginning."""
    recording = world(name)
    begin, end = recording.now, recording.now + 4 * HOUR_S
    return recording.series.between(begin, end), recording.faulty(kind, begin, end, 7)


class Stub:
    """Begins an episode whenever the contrast falls under 30, and after every day."""

    drifting = False

    def __init__(self, reference: Series) -> None:
        self.alarm = float(reference.at[0])

    def feed(self, series: Series) -> Iterator[float]:
        for at, contrast in zip(series.at.tolist(), series.column("contrast").tolist(), strict=True):
            if contrast < 30 or at - self.alarm > DAY_S:
                self.alarm = at
                yield at

    def copy(self) -> Stub:
        return copy.copy(self)


def test_a_trial_counts_false_episodes_and_delays() -> None:
    outcome = run(Trial("stationary", 12, 3.0, 3, (COVERED, EXPOSURE), 1), Stub)
    assert [round(at / HOUR_S) for at in outcome.false] == [12, 36, 60]
    assert set(outcome.delays) == {COVERED, EXPOSURE}
    assert outcome.delays[COVERED] < 6
    assert 60 < outcome.delays[EXPOSURE] <= 24 * HOUR_S  # the next of the daily alarms


def test_a_replay_finds_what_the_monitor_finds() -> None:
    trial = Trial("gaussian", 12, 3.0, 3, (COVERED, MIX), 0.5)
    whole, fast = run(trial), replay(trial)
    assert whole.false == fast.false == []
    for kind in (COVERED, MIX):
        assert fast.delays[kind] == pytest.approx(whole.delays[kind], abs=1200)  # checks at other times
        assert fast.opinions[kind].kind == whole.opinions[kind].kind


def test_a_summary_counts_what_was_not_found_as_infinite() -> None:
    delays = [3600.0, 7200.0, math.inf, math.nan]
    summary = Summary([Outcome(10.0, [1.0], 0.0, {MOVED: delay}) for delay in delays])
    assert summary.false_per_day == pytest.approx(0.1)
    assert summary.found(MOVED) == (2, 4)
    assert summary.median_delay_h(MOVED) == math.inf
    assert summary.found(KINDS[0]) == (0, 0)


@pytest.mark.parametrize(("count", "bound"), [(0, 2.996), (3, 7.754), (29, 39.54)])
def test_the_poisson_bound_is_that_of_tables(count: int, bound: float) -> None:
    assert poisson_bound(count) == pytest.approx(bound, abs=0.005)
