"""Before its hello a socket buffers little, whatever its client sends; afterwards nothing is lost."""

from __future__ import annotations

import asyncio

import pytest

from streamer.core.byte_budget import ByteBudget
from streamer.http.connection_limits import FREE_BYTES, HelloGate
from streamer.http.problem_details import Problem
from streamer.websocket.handshake import HandshakeSlots


class Flow:
    paused = False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Reader:
    def __init__(self) -> None:
        self.fed = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.fed += data
        return False, b""

    def feed_eof(self) -> None:
        self.fed += b"<end>"


@pytest.fixture
def parts() -> tuple[HelloGate, Reader, Flow, list[str]]:
    flow, reader, told = Flow(), Reader(), list[str]()
    gate = HelloGate(100, flow)
    gate.put_before(reader)
    gate.on_excess = lambda: told.append("excess")
    gate.on_open = lambda: told.append("open")
    return gate, reader, flow, told


Parts = tuple[HelloGate, Reader, Flow, list[str]]


async def test_bytes_without_a_hello_end_the_connection_and_are_not_kept(parts: Parts) -> None:
    gate, reader, _, told = parts
    for _ in range(100):
        gate.feed_data(b"x" * 100)
    assert len(reader.fed) == gate.most_bytes
    await asyncio.sleep(0.1)
    assert told == ["excess"]
    gate.feed_data(b"x" * 100)
    assert len(reader.fed) == gate.most_bytes


async def test_what_comes_while_a_hello_is_judged_waits_and_is_read_in_order(parts: Parts) -> None:
    gate, reader, flow, told = parts
    sent = b"".join(bytes([number]) * 50 for number in range(100))
    gate.feed_data(sent[:3000])
    assert flow.paused
    gate.taken()
    gate.feed_data(sent[3000:])
    await asyncio.sleep(0.1)
    assert told == []
    gate.open()
    gate.open()
    assert (reader.fed, flow.paused, told) == (sent, False, ["open"])
    gate.feed_data(b"more")
    assert reader.fed == sent + b"more"


async def test_a_second_hello_has_the_room_of_the_first(parts: Parts) -> None:
    gate, reader, flow, told = parts
    gate.wait()
    gate.feed_data(b"a" * gate.most_bytes)
    gate.taken()
    gate.wait()
    gate.feed_data(b"b" * gate.most_bytes)
    assert len(reader.fed) == 2 * gate.most_bytes
    assert not flow.paused
    gate.taken()
    await asyncio.sleep(0.1)
    assert told == []


async def test_a_large_message_is_held_in_the_byte_budget_until_it_is_read(parts: Parts) -> None:
    gate, reader, _, told = parts
    budget = ByteBudget(900 << 10)
    gate.hold = lambda: budget.hold("a", "messages")
    gate.on_full = lambda: told.append("full")
    gate.open()
    gate.feed_data(bytes(FREE_BYTES))
    assert budget.held_bytes == 0
    gate.feed_data(bytes(500 << 10))
    assert budget.held_bytes == 500 << 10
    gate.message_read()
    assert budget.held_bytes == 0
    gate.feed_data(bytes(FREE_BYTES + (601 << 10)))
    assert (told, budget.held_bytes) == (["open", "full"], 0)
    fed = len(reader.fed)
    gate.feed_data(b"more")
    assert len(reader.fed) == fed
    gate.close()
    assert budget.held_bytes == 0


def test_an_address_has_its_share_of_the_places_before_hello() -> None:
    slots = HandshakeSlots(per_address=2, in_all=3)
    slots.take("a")
    slots.take("a")
    with pytest.raises(Problem, match="hello"):
        slots.take("a")
    slots.take("b")
    with pytest.raises(Problem, match="hello") as caught:
        slots.take("c")
    assert (caught.value.status, caught.value.headers["Retry-After"]) == (503, "2")
    slots.give_back("a")
    slots.take("c")
    assert len(slots) == 3
