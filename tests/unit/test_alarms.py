"""Alarms ring in order and once, cancelled ones never; one timer and little memory are enough for all."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from streamer.core.alarms import MAX_CANCELLED, Alarms


class Clock:
    """A clock that the test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_alarms_ring_in_order_and_once() -> None:
    clock, rung = Clock(), list[str]()
    alarms = Alarms(clock)
    for when in (3.0, 1.0, 2.0):
        alarms.set(when, partial(rung.append, f"at {when:g}"))
    cancelled = alarms.set(1.5, lambda: rung.append("cancelled"))
    alarms.cancel(cancelled)
    alarms.cancel(cancelled)
    alarms.cancel(0)
    clock.now = 2.0
    alarms.ring()
    alarms.ring()
    assert rung == ["at 1", "at 2"]
    clock.now = 9.0
    alarms.ring()
    assert rung == ["at 1", "at 2", "at 3"]
    assert len(alarms) == 0


async def test_one_that_rings_may_set_and_cancel_others() -> None:
    clock, rung = Clock(), list[str]()
    alarms = Alarms(clock)
    others = [alarms.set(5.0, lambda: rung.append("other")) for _ in range(3 * MAX_CANCELLED)]

    def first() -> None:
        rung.append("first")
        for other in others:
            alarms.cancel(other)
        alarms.set(2.0, lambda: rung.append("second"))

    alarms.set(1.0, first)
    clock.now = 1.0
    alarms.ring()
    clock.now = 6.0
    alarms.ring()
    assert rung == ["first", "second"]


async def test_one_that_fails_does_not_keep_others_from_ringing() -> None:
    alarms, rung = Alarms(), asyncio.Event()

    def fail() -> None:
        raise ZeroDivisionError

    alarms.set(1.0, fail)
    alarms.set(2.0, rung.set)
    with pytest.raises(ZeroDivisionError):
        alarms.ring()
    await asyncio.wait_for(rung.wait(), 30)


async def test_the_timer_goes_off_for_the_earliest() -> None:
    alarms, rung = Alarms(), asyncio.Event()
    now = asyncio.get_running_loop().time()
    alarms.set(now + 3600, rung.clear)
    alarms.set(now, rung.set)
    await asyncio.wait_for(rung.wait(), 30)


async def test_cancelled_alarms_hold_nothing_and_are_forgotten() -> None:
    alarms = Alarms(Clock())
    alarms.set(1e9, print)
    for number in range(10_000):
        alarms.cancel(alarms.set(1.0 + number, print))
    assert len(alarms) <= 2 * MAX_CANCELLED
