"""Tests the forwarder of docs/integrations.md: when counts change, and what a slow receiver gets."""

from __future__ import annotations

import asyncio

from examples.forward import Changes, Counts


def test_a_number_rises_at_once_and_falls_after_the_hold() -> None:
    counts = Counts(["person", "car"], hold_s=5)
    assert counts.update([], 0.0) == {}
    assert counts.update(["person", "person", "dog"], 1.0) == {"person": 2}
    assert counts.update(["person"], 2.0) == {}, "one box is missing in one frame"
    assert counts.update(["person", "car"], 5.9) == {"car": 1}
    assert counts.update(["person"], 6.1) == {"person": 1}
    assert counts.update([], 20.0) == {"person": 0, "car": 0}
    assert counts.current == {"person": 0, "car": 0}


async def test_a_slow_receiver_gets_the_newest_numbers() -> None:
    sent = []
    free = asyncio.Event()

    class Slow:
        async def send(self, label: str, count: int) -> None:
            sent.append((label, count))
            await free.wait()

        async def close(self) -> None:
            pass

    changes = Changes()
    delivery = asyncio.create_task(changes.deliver(Slow()))
    changes.add({"person": 1})
    while not sent:
        await asyncio.sleep(0)
    for count in (2, 3, 4):
        changes.add({"person": count})
    changes.end()
    free.set()
    await delivery
    assert sent == [("person", 1), ("person", 4)]
