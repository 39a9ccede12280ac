"""Thresholds are computed from windows of the reference; a short reference keeps default thresholds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from streamer.drift.calibration import DEFAULT_THRESHOLD, THRESHOLD_FLOOR, calibrate, day_bucket
from streamer.drift.reference import learn
from streamer.drift.rows import NUMERIC, Table
from tests.helpers.drift_rows import START, World, rows

WINDOW_S = 1800.0
#: Seconds between rows; the service takes a row every 5 s, but these tests cover whole days.
INTERVAL_S = 15.0
DAY = 5760


def table(values: npt.NDArray[np.float32]) -> Table:
    return Table.of(list(rows(values, interval_s=INTERVAL_S)))


def test_slow_scenes_get_wider_thresholds_than_quick_ones() -> None:
    found = []
    for slow in (0.02, 0.35):
        calibration = calibrate(table(World(5, slow=slow).values(DAY)), WINDOW_S, 0.001)
        assert calibration is not None
        assert calibration.blocks > 100
        found.append(np.median([calibration.thresholds[name] for name in NUMERIC]))
    assert found[1] > 1.4 * found[0] > 1.4 * THRESHOLD_FLOOR


def test_a_still_scene_is_not_paged_for_less_than_the_floor() -> None:
    values = np.random.default_rng(0).normal(size=(DAY, len(NUMERIC))).astype(np.float32)
    calibration = calibrate(table(values), WINDOW_S, 0.001)
    assert calibration is not None
    found = [calibration.thresholds[name] for name in NUMERIC]
    assert THRESHOLD_FLOOR <= min(found) <= max(found) < 2.5 * THRESHOLD_FLOOR


def test_constant_and_missing_columns_do_not_set_the_others() -> None:
    values = World(5).values(DAY)
    whole = calibrate(table(values), WINDOW_S, 0.001)
    values[:, NUMERIC.index("aspect")] = 4 / 3
    values[:, NUMERIC.index("jpeg_bpp")] = np.nan
    odd = calibrate(table(values), WINDOW_S, 0.001)
    assert whole is not None
    assert odd is not None
    assert odd.thresholds["aspect"] == THRESHOLD_FLOOR
    assert odd.thresholds["jpeg_bpp"] == DEFAULT_THRESHOLD
    assert odd.thresholds["contrast"] == pytest.approx(whole.thresholds["contrast"], rel=0.15)


@pytest.mark.parametrize("hours", [0.5, 5, 9])
def test_a_short_reference_stays_uncalibrated_and_says_so(hours: float) -> None:
    reference, _ = learn(list(rows(World(1).values(int(hours * 720)))), WINDOW_S, 0.001)
    assert not reference.whole.calibration.calibrated
    assert reference.whole.calibration.thresholds["noise"] == DEFAULT_THRESHOLD
    assert reference.seasons == {}


def test_ten_hours_are_enough_and_a_gap_is_no_block() -> None:
    found = list(rows(World(1).values(11 * 720)))
    whole, _ = learn(found, WINDOW_S, 0.001)
    gap, _ = learn(found[:3960] + list(rows(World(2).values(3960), START + 30 * 3600)), WINDOW_S, 0.001)
    assert whole.whole.calibration.blocks == 63
    assert gap.whole.calibration.blocks < 70  # without the gap, 210 blocks would fit into this time


def test_three_days_are_measured_by_the_time_of_day() -> None:
    values = World(3).values(3 * DAY)
    hours = np.arange(len(values)) * INTERVAL_S / 3600
    values[:, 0] += 2 * np.sin(2 * np.pi * hours / 24)
    reference, kept = learn(list(rows(values, interval_s=INTERVAL_S)), WINDOW_S, 0.001)
    assert len(kept) == 5000
    assert set(reference.seasons) == set(range(6))
    night, day = (reference.at(START + hour * 3600) for hour in (18, 6))
    assert np.median(day.numbers["brightness"]) > np.median(night.numbers["brightness"]) + 2
    assert night.calibration.thresholds["brightness"] < reference.whole.calibration.thresholds["brightness"]
    assert day_bucket(START) != day_bucket(START + 4 * 3600)


def test_only_rows_of_the_newest_model_are_learnt() -> None:
    old, new = list(rows(World(1).values(500), model="v1:old")), World(1).values(300)
    reference, kept = learn(old + list(rows(new, START + 9000, model="v1:new")), WINDOW_S, 0.001)
    assert (reference.model, len(kept)) == ("v1:new", 300)
    with pytest.raises(ValueError, match="50 rows of model 'v1:new'; needed are 100"):
        learn(old[:10] + list(rows(new[:50], START + 9000, model="v1:new")), WINDOW_S, 0.001)
