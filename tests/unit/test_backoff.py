"""The back-off of clients, restarts and deliveries: doubling, jitter, limits, delays that a server sets."""

from __future__ import annotations

import pytest

from streamer.core.backoff import ASKED_SPREAD_S, MAX_ASKED_S, Backoff


def highest(low: float, high: float) -> float:
    return max(low, high)


def lowest(low: float, high: float) -> float:
    return min(low, high)


def test_delays_double_up_to_the_limit_and_start_over_after_a_success() -> None:
    backoff = Backoff(highest)
    assert [backoff.next_s() for _ in range(8)] == [1, 2, 4, 8, 16, 30, 30, 30]
    backoff.reset()
    assert backoff.next_s() == 1


def test_jitter_reaches_down_to_the_least_delay_or_to_half_of_the_upper_end() -> None:
    full = Backoff(lowest)
    assert {full.next_s() for _ in range(8)} == {0.5}
    half = Backoff(lowest, first_s=0.1, max_s=1.0, least_s=None)
    assert [half.next_s() for _ in range(6)] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.5, 0.5])


def test_what_the_server_asks_for_replaces_the_computed_delay_within_a_limit() -> None:
    backoff = Backoff(lowest)
    assert backoff.next_s(3.0) == 3.0
    assert backoff.next_s(-1.0) == 0.0
    assert Backoff(highest).next_s(1e9) == MAX_ASKED_S + ASKED_SPREAD_S


def test_a_floor_and_a_factor_raise_one_delay_and_never_above_the_limit() -> None:
    backoff = Backoff(highest, first_s=1.0, max_s=300.0)
    assert backoff.next_s(floor_s=60.0) == 60.0
    assert backoff.next_s() == 2.0
    assert backoff.next_s(factor=60.0) == 240.0
    assert backoff.next_s(factor=60.0) == 300.0


def test_thousands_of_failures_in_a_row_do_not_overflow() -> None:
    backoff = Backoff(highest)
    assert max(backoff.next_s() for _ in range(5000)) == 30.0
