"""Before its hello a socket buffers little, whatever its client sends, and after it no byte is lost."""

from __future__ import annotations

import asyncio

import pytest

from streamer.core.byte_budget import ByteBudget
from streamer.http.connection_limits import FREE_BYTES, ReadLimiter
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
def parts() -> tuple[ReadLimiter, Reader, Flow, list[str]]:
    flow, reader, told = Flow(), Reader(), list[str]()
    limiter = ReadLimiter(100, flow)
    limiter.attach(reader)
    limiter.on_excess = lambda: told.append("excess")
    limiter.on_handshake_end = lambda: told.append("open")
    return limiter, reader, flow, told


Parts = tuple[ReadLimiter, Reader, Flow, list[str]]


async def test_bytes_without_a_hello_end_the_connection_and_are_not_kept(parts: Parts) -> None:
    limiter, reader, _, told = parts
    for _ in range(100):
        limiter.feed_data(b"x" * 100)
    assert len(reader.fed) == limiter.max_bytes
    await asyncio.sleep(0.1)
    assert told == ["excess"]
    limiter.feed_data(b"x" * 100)
    assert len(reader.fed) == limiter.max_bytes


async def test_what_comes_while_a_hello_is_judged_waits_and_is_read_in_order(parts: Parts) -> None:
    limiter, reader, flow, told = parts
    sent = b"".join(bytes([number]) * 50 for number in range(100))
    limiter.feed_data(sent[:3000])
    assert flow.paused
    limiter.hello_received()
    limiter.feed_data(sent[3000:])
    await asyncio.sleep(0.1)
    assert told == []
    limiter.hello_accepted()
    limiter.hello_accepted()
    assert (reader.fed, flow.paused, told) == (sent, False, ["open"])
    limiter.feed_data(b"more")
    assert reader.fed == sent + b"more"


async def test_a_second_hello_has_the_room_of_the_first(parts: Parts) -> None:
    limiter, reader, flow, told = parts
    limiter.expect_hello()
    limiter.feed_data(b"a" * limiter.max_bytes)
    limiter.hello_received()
    limiter.expect_hello()
    limiter.feed_data(b"b" * limiter.max_bytes)
    assert len(reader.fed) == 2 * limiter.max_bytes
    assert not flow.paused
    limiter.hello_received()
    await asyncio.sleep(0.1)
    assert told == []


async def test_a_large_message_is_held_in_the_byte_budget_until_it_is_read(parts: Parts) -> None:
    limiter, reader, _, told = parts
    budget = ByteBudget(900 << 10)
    limiter.hold = lambda: budget.hold("a", "messages")
    limiter.on_full = lambda: told.append("full")
    limiter.hello_accepted()
    limiter.feed_data(bytes(FREE_BYTES))
    assert budget.held_bytes == 0
    limiter.feed_data(bytes(500 << 10))
    assert budget.held_bytes == 500 << 10
    limiter.message_read()
    assert budget.held_bytes == 0
    limiter.feed_data(bytes(FREE_BYTES + (601 << 10)))
    assert (told, budget.held_bytes) == (["open", "full"], 0)
    fed = len(reader.fed)
    limiter.feed_data(b"more")
    assert len(reader.fed) == fed
    limiter.close()
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
    slots.release("a")
    slots.take("c")
    assert len(slots) == 3
