"""The limit on control messages lets a burst pass, but not a continuous stream."""

from __future__ import annotations

import pytest

from streamer.streams.session_control import (
    CONTROL_BURST,
    CONTROL_PER_S,
    CONTROL_REFUSALS,
    ControlRate,
    RateLimited,
    TooManyMessages,
)


def is_taken(rate: ControlRate, now: float) -> bool:
    try:
        rate.charge(now)
    except (RateLimited, TooManyMessages):
        return False
    return True


def test_a_burst_passes_and_then_as_many_as_the_rate_allows() -> None:
    rate = ControlRate(0.0)
    assert all(is_taken(rate, 0.0) for _ in range(CONTROL_BURST))
    assert not is_taken(rate, 0.0)
    taken = sum(is_taken(rate, 0.01 * step) for step in range(1, 1001))
    assert abs(taken - 10 * CONTROL_PER_S) <= 1


def test_a_pause_gives_no_more_than_a_burst_back() -> None:
    rate = ControlRate(0.0)
    assert sum(is_taken(rate, 1e6) for _ in range(2 * CONTROL_BURST)) == CONTROL_BURST


def test_a_client_that_does_not_stop_is_given_up() -> None:
    rate = ControlRate(0.0)
    for _ in range(CONTROL_BURST + CONTROL_REFUSALS):
        is_taken(rate, 0.0)
    with pytest.raises(TooManyMessages):
        rate.charge(0.0)
