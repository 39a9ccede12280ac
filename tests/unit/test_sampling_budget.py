"""The budgets per stream, per hour and per day hold for any sequence of arrivals."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamer.sampling.policy import STREAM_BURST, TOTAL_BURST, Budget, Policy

DAY_S = 86_400.0


def budget(**limits: int) -> Budget:
    return Budget(
        Policy(**({"stream_per_hour": 20, "per_hour": 200, "per_day": 2000, "day_bytes": 1 << 40} | limits))
    )


def test_a_stream_has_a_burst_and_then_its_hourly_rate() -> None:
    rules = budget()
    assert [rules.take("a", 1, 0.0, 0.0) for _ in range(4)] == [True, True, True, False]
    assert rules.take("b", 1, 0.0, 0.0)
    assert not rules.take("a", 1, 179.0, 0.0)
    assert rules.take("a", 1, 181.0, 0.0)


def test_all_streams_together_are_bound_too_and_a_refusal_charges_nobody() -> None:
    rules = budget(per_hour=3)
    assert [rules.take(name, 1, 0.0, 0.0) for name in "abcd"] == [True, True, True, False]
    assert rules.take("d", 1, 1200.0, 0.0)


def test_a_day_ends_at_midnight_utc() -> None:
    rules = budget(per_day=2, stream_per_hour=1000, per_hour=1000)
    assert [rules.take("a", 1, t, DAY_S - 10) for t in (0.0, 60.0, 120.0)] == [True, True, False]
    assert rules.take("a", 1, 180.0, DAY_S + 1)
    assert [budget(day_bytes=10).take("a", size, 0.0, 0.0) for size in (11, 10)] == [False, True]


def test_a_budget_of_nothing_takes_nothing() -> None:
    assert not budget(stream_per_hour=0).take("a", 1, 0.0, 0.0)
    assert not budget(per_hour=0).take("a", 1, 0.0, 0.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 600)), max_size=200))
def test_no_order_of_arrivals_gets_past_a_rate(arrivals: list[tuple[str, float]]) -> None:
    rules, now = budget(), 0.0
    taken = {"a": 0, "b": 0, "c": 0}
    for stream, pause_s in arrivals:
        now += pause_s
        taken[stream] += rules.take(stream, 1, now, 0.0)
    assert max(taken.values()) <= STREAM_BURST + 20 * now / 3600 + 1e-6
    assert sum(taken.values()) <= TOTAL_BURST + 200 * now / 3600 + 1e-6


def test_a_restart_does_not_fill_the_budgets() -> None:
    rules = budget(per_day=5)
    assert [rules.take("a", 1, 1000.0, DAY_S) for _ in range(4)] == [True, True, True, False]
    second = budget(per_day=5)
    # The clock of the new process begins elsewhere; 60 s have passed.
    second.restore(rules.state(1000.0, DAY_S), 5.0, DAY_S + 60)
    assert not second.take("a", 1, 5.0, DAY_S + 60)
    assert second.take("a", 1, 5.0 + 121, DAY_S + 181)
    assert second.take("b", 1, 5.0 + 121, DAY_S + 181)
    assert not second.take("c", 1, 5.0 + 121, DAY_S + 181), "five on this day"
