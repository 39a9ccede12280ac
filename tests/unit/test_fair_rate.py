"""Rates follow max-min fairness: a grant is lowered at once, and raised only after a while."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.scheduling.clients import Client
from streamer.scheduling.fair_rates import (
    RAISE_AFTER_S,
    FairRates,
    client_rates,
    share_for_one_more,
    water_level,
)


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


#: In the tests of grants, each stream belongs to a client of its own.
OWNERS = {"a": Client("a", 1), "b": Client("b", 2)}


def update(
    rates: FairRates[str], demands: dict[str, float], capacity: float, now: float
) -> dict[str, float | None]:
    return rates.update(demands, OWNERS, capacity, now)


def test_clients_divide_the_capacity_by_weight_and_leave_what_they_do_not_want() -> None:
    weights = {1: 1.0, 2: 3.0, 3: 1.0}
    assert client_rates({1: 100.0, 2: 100.0, 3: 10.0}, weights, 50.0) == pytest.approx(
        {1: 10.0, 2: 30.0, 3: 10.0}
    )
    assert client_rates({1: 10.0, 2: 10.0}, weights, 50.0) == {1: math.inf, 2: math.inf}


def test_a_client_with_many_streams_gets_the_share_of_one() -> None:
    many, single = Client("many", 1), Client("single", 2)
    demands = dict.fromkeys(range(20), math.inf) | {20: math.inf}
    owners = dict.fromkeys(range(20), many) | {20: single}
    rates: FairRates[int] = FairRates()
    granted = rates.update(demands, owners, 60.0, 0.0)
    assert granted[20] == pytest.approx(30.0)
    assert granted[0] == pytest.approx(1.5)


def test_a_newcomer_is_promised_a_client_s_share_and_a_known_client_a_part_of_its_own() -> None:
    greedy = Client("greedy", 1)
    demands, owners = dict.fromkeys(range(20), 200.0), dict.fromkeys(range(20), greedy)
    assert share_for_one_more(demands, owners, Client("new", 2), 60.0) == pytest.approx(30.0)
    assert share_for_one_more(demands, owners, greedy, 60.0) == pytest.approx(60.0 / 21)


def test_a_grant_falls_at_once_and_rises_only_after_a_while() -> None:
    rates: FairRates[str] = FairRates()
    assert update(rates, {"a": 200.0}, 60.0, 0.0) == {"a": 60.0}
    assert update(rates, {"a": 200.0, "b": 200.0}, 60.0, 0.5) == {"a": 30.0, "b": 30.0}
    assert update(rates, {"a": 200.0}, 60.0, 1.0) == {}
    assert update(rates, {"a": 200.0}, 60.0, 1.0 + RAISE_AFTER_S) == {"a": 60.0}


def test_a_limit_is_lifted_when_demand_fits_again() -> None:
    rates: FairRates[str] = FairRates()
    update(rates, {"a": 200.0}, 60.0, 0.0)
    assert update(rates, {"a": 20.0}, 60.0, 1.0) == {}
    assert update(rates, {"a": 20.0}, 60.0, 1.0 + RAISE_AFTER_S) == {"a": None}


def test_a_short_relief_does_not_raise_a_grant() -> None:
    rates: FairRates[str] = FairRates()
    update(rates, {"a": 200.0}, 60.0, 0.0)
    update(rates, {"a": 20.0}, 60.0, 1.0)
    update(rates, {"a": 200.0}, 60.0, 2.0)
    assert update(rates, {"a": 20.0}, 60.0, 1.0 + RAISE_AFTER_S) == {}


def test_streams_that_are_gone_are_forgotten() -> None:
    rates: FairRates[str] = FairRates()
    update(rates, {"a": 200.0}, 60.0, 0.0)
    update(rates, {}, 60.0, 1.0)
    assert update(rates, {"a": 20.0}, 60.0, 2.0) == {}
