"""Max-min fairness, lowered at once and raised with hysteresis."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.fair_rate import RAISE_AFTER_S, FairRates, water_level


@pytest.mark.parametrize(
    ("demands", "capacity", "level"),
    [
        ([10.0, 10.0], 30.0, math.inf),
        ([30.0, 30.0], 30.0, 15.0),
        ([5.0, 100.0, 100.0], 65.0, 30.0),
        ([math.inf, 5.0], 65.0, 60.0),
        ([math.inf], 60.0, 60.0),
        ([], 60.0, math.inf),
    ],
)
def test_the_water_level_satisfies_the_small_and_splits_the_rest(
    demands: list[float], capacity: float, level: float
) -> None:
    assert water_level(demands, capacity) == pytest.approx(level)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=30), st.floats(1, 500))
def test_the_capacity_is_used_up_but_never_exceeded(demands: list[float], capacity: float) -> None:
    level = water_level(demands, capacity)
    used = sum(min(demand, level) for demand in demands)
    assert used <= capacity * (1 + 1e-9)
    if math.isinf(level):
        assert sum(demands) <= capacity * (1 + 1e-9)
    else:
        assert used == pytest.approx(capacity)


def test_a_grant_falls_at_once_and_rises_only_after_a_while() -> None:
    rates: FairRates[str] = FairRates()
    assert rates.update({"a": 200.0}, 60.0, 0.0) == {"a": 60.0}
    assert rates.update({"a": 200.0, "b": 200.0}, 60.0, 0.5) == {"a": 30.0, "b": 30.0}
    assert rates.update({"a": 200.0}, 60.0, 1.0) == {}
    assert rates.update({"a": 200.0}, 60.0, 1.0 + RAISE_AFTER_S) == {"a": 60.0}


def test_a_limit_is_lifted_when_demand_fits_again() -> None:
    rates: FairRates[str] = FairRates()
    rates.update({"a": 200.0}, 60.0, 0.0)
    assert rates.update({"a": 20.0}, 60.0, 1.0) == {}
    assert rates.update({"a": 20.0}, 60.0, 1.0 + RAISE_AFTER_S) == {"a": None}


def test_a_short_relief_does_not_raise_a_grant() -> None:
    rates: FairRates[str] = FairRates()
    rates.update({"a": 200.0}, 60.0, 0.0)
    rates.update({"a": 20.0}, 60.0, 1.0)
    rates.update({"a": 200.0}, 60.0, 2.0)
    assert rates.update({"a": 20.0}, 60.0, 1.0 + RAISE_AFTER_S) == {}


def test_streams_that_are_gone_are_forgotten() -> None:
    rates: FairRates[str] = FairRates()
    rates.update({"a": 200.0}, 60.0, 0.0)
    rates.update({}, 60.0, 1.0)
    assert rates.update({"a": 20.0}, 60.0, 2.0) == {}
