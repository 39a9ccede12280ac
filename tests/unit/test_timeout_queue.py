"""Timeouts run in order and once, cancelled ones never run, and all share one timer and little memory."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from streamer.core.timeout_queue import MAX_CANCELLED, TimeoutQueue


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_timeout_queue_ring_in_order_and_once() -> None:
    clock, rung = Clock(), list[str]()
    timeouts = TimeoutQueue(clock)
    for when in (3.0, 1.0, 2.0):
        timeouts.schedule(when, partial(rung.append, f"at {when:g}"))
    cancelled = timeouts.schedule(1.5, lambda: rung.append("cancelled"))
    timeouts.cancel(cancelled)
    timeouts.cancel(cancelled)
    timeouts.cancel(0)
    clock.now = 2.0
    timeouts.run_due()
    timeouts.run_due()
    assert rung == ["at 1", "at 2"]
    clock.now = 9.0
    timeouts.run_due()
    assert rung == ["at 1", "at 2", "at 3"]
    assert len(timeouts) == 0


async def test_one_that_rings_may_set_and_cancel_others() -> None:
    clock, rung = Clock(), list[str]()
    timeouts = TimeoutQueue(clock)
    others = [timeouts.schedule(5.0, lambda: rung.append("other")) for _ in range(3 * MAX_CANCELLED)]

    def first() -> None:
        rung.append("first")
        for other in others:
            timeouts.cancel(other)
        timeouts.schedule(2.0, lambda: rung.append("second"))

    timeouts.schedule(1.0, first)
    clock.now = 1.0
    timeouts.run_due()
    clock.now = 6.0
    timeouts.run_due()
    assert rung == ["first", "second"]


async def test_one_that_fails_does_not_keep_others_from_running() -> None:
    timeouts, rung = TimeoutQueue(), asyncio.Event()

    def fail() -> None:
        raise ZeroDivisionError

    timeouts.schedule(1.0, fail)
    timeouts.schedule(2.0, rung.set)
    with pytest.raises(ZeroDivisionError):
        timeouts.run_due()
    await asyncio.wait_for(rung.wait(), 60)


async def test_the_timer_runs_out_for_the_earliest() -> None:
    timeouts, rung = TimeoutQueue(), asyncio.Event()
    now = asyncio.get_running_loop().time()
    timeouts.schedule(now + 3600, rung.clear)
    timeouts.schedule(now, rung.set)
    await asyncio.wait_for(rung.wait(), 60)


async def test_cancelled_timeouts_hold_nothing_and_are_forgotten() -> None:
    timeouts = TimeoutQueue(Clock())
    timeouts.schedule(1e9, print)
    for number in range(10_000):
        timeouts.cancel(timeouts.schedule(1.0 + number, print))
    assert len(timeouts) <= 2 * MAX_CANCELLED
