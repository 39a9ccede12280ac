"""Promise R15: a replica whose queue of POSTs stays full is not ready, but only briefly, without flapping."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.ipc.shared_status import Presence, SharedStatus
from streamer.scheduling.queue_pressure import (
    FULL,
    FULL_S,
    MAX_GAP_S,
    PRESENT_MIN_S,
    ROOM,
    STAGGER_S,
    QueuePressure,
)
from streamer.server.liveness import Liveness


def away_after(shares: list[float], *, stagger_s: float = 0.0) -> list[bool]:
    """Return for each share of the queue, one per second, whether the replica turns clients away."""
    pressure = QueuePressure(lambda: stagger_s)
    return [pressure.observe(share, float(now)) for now, share in enumerate(shares)]


def test_full_for_five_seconds_sends_new_clients_away() -> None:
    assert away_after([1.0] * 7) == [False] * 5 + [True] * 2


def test_nine_tenths_are_full_and_less_is_not() -> None:
    assert away_after([0.9] * 7)[-1]
    assert not away_after([0.89] * 60)[-1]


def test_one_moment_with_room_begins_the_time_anew() -> None:
    assert not any(away_after([1.0] * 4 + [0.8] + [1.0] * 5))


def test_replicas_leave_at_different_times() -> None:
    assert away_after([1.0] * 10, stagger_s=3.0).index(True) == 8


def test_it_is_back_with_half_of_the_queue_free_and_not_before() -> None:
    assert away_after([1.0] * 6 + [0.6, 0.6, 0.4]) == [False] * 5 + [True] * 3 + [False]


def test_it_is_back_after_ten_seconds_although_the_queue_is_full_and_stays_for_thirty() -> None:
    said = away_after([1.0] * 80)
    left, back = said.index(True), 5 + said[5:].index(False)
    assert back - left == MAX_GAP_S
    assert said[back:].index(True) == PRESENT_MIN_S


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.1, 2.0)), max_size=300), st.floats(0.0, STAGGER_S))
def test_whatever_the_load_it_leaves_late_and_never_for_long(
    looks: list[tuple[float, float]], stagger_s: float
) -> None:
    pressure = QueuePressure(lambda: stagger_s)
    now = full_since = left = 0.0
    returned = -PRESENT_MIN_S
    away = False
    for share, after_s in looks:
        now += after_s
        full_since = now if share < FULL else full_since
        was, away = away, pressure.observe(share, now)
        if away and not was:
            left = now
            assert now - full_since >= FULL_S + stagger_s
            assert now - returned >= PRESENT_MIN_S
        if was and not away:
            returned = now
            assert share < ROOM or now - left >= MAX_GAP_S
        assert not away or now - left < MAX_GAP_S


@pytest.mark.parametrize(
    ("workers", "saturated"),
    [
        ([(Presence.SERVING, 1)], True),
        ([(Presence.SERVING, 1), (Presence.SERVING, 0)], False),
        # A worker that is being restarted does not count.
        ([(Presence.SERVING, 1), (Presence.DOWN, 0)], True),
        ([(Presence.DOWN, 1)], False),
    ],
)
def test_a_replica_is_saturated_when_every_worker_that_serves_is(
    workers: list[tuple[Presence, int]], saturated: bool
) -> None:
    shared_status = SharedStatus()
    shared_status.post("workers", len(workers))
    for number, (presence, full) in enumerate(workers):
        shared_status.post_worker(number, "presence", presence)
        shared_status.post_worker(number, "saturated", full)
    assert Liveness(shared_status).saturated is saturated
    shared_status.close()
