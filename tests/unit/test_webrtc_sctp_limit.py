"""What a client leaves unfinished on its data channels is bounded, on aiortc's own transport."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiortc.rtcsctptransport import DataChunk

from streamer.webrtc.sctp_limit import MAX_FRAGMENTS, MAX_MISORDERED, MAX_SCTP_STREAMS, MAX_UNFINISHED_BYTES
from streamer.webrtc.stack import EXCESS, Peer, UdpPlan
from tests.unit.test_webrtc_stack import NoSink, offer_of_a_browser

_FIRST, _LAST, _UNORDERED = 2, 1, 4
_TEXT = 51


@pytest.fixture
async def parts() -> AsyncIterator[tuple[Any, list[str]]]:
    """A transport that has answered an offer, and what was told about it."""
    client, offer = await offer_of_a_browser()
    peer = Peer(UdpPlan(), NoSink())
    await peer.answer(offer)
    told: list[str] = []
    peer.on(EXCESS, lambda: told.append("excess"))
    assert peer.sctp is not None
    peer.sctp._last_received_tsn = 0
    yield peer.sctp, told
    await peer.shut(2.0)
    await client.close()


Parts = tuple[Any, list[str]]


def chunk(tsn: int, data: bytes, *, flags: int = 0, stream: int = 0, seq: int = 0) -> DataChunk:
    made = DataChunk(flags=flags)
    made.tsn, made.stream_id, made.stream_seq, made.protocol, made.user_data = tsn, stream, seq, _TEXT, data
    return made


async def send_until_told(sctp: Any, told: list[str], chunks: Any) -> int:
    """Give chunks to the transport until it has had enough; returns how many it took."""
    for count, each in enumerate(chunks, 1):
        await sctp._receive_data_chunk(each)
        if told:
            return count
    raise AssertionError("nothing was said")


async def test_a_message_without_an_end_is_bounded_in_bytes(parts: Parts) -> None:
    sctp, told = parts
    endless = (chunk(tsn, bytes(1200), flags=_FIRST if tsn == 1 else 0) for tsn in range(1, 10_000))
    count = await send_until_told(sctp, told, endless)
    assert abs(count * 1200 - MAX_UNFINISHED_BYTES) <= 1200


async def test_tiny_fragments_are_bounded_in_number_and_cost_little(parts: Parts) -> None:
    sctp, told = parts
    begun = time.thread_time()
    endless = (chunk(tsn, b"x", flags=_FIRST if tsn == 1 else 0) for tsn in range(1, 100_000))
    assert await send_until_told(sctp, told, endless) == MAX_FRAGMENTS + 1
    assert time.thread_time() - begun < 0.5


async def test_streams_and_gaps_are_bounded(parts: Parts) -> None:
    sctp, told = parts
    assert (
        await send_until_told(sctp, told, (chunk(n, b"x", flags=_FIRST, stream=n) for n in range(1, 10_000)))
        == MAX_SCTP_STREAMS + 1
    )


async def test_datagrams_behind_one_that_is_missing_are_bounded(parts: Parts) -> None:
    sctp, told = parts
    whole = _FIRST | _LAST | _UNORDERED
    # An unknown kind of message: it is taken off the queue and nothing is done with it.
    chunks = [chunk(tsn, b"x", flags=whole) for tsn in range(5, 10_000)]
    for each in chunks:
        each.protocol = 999
    assert await send_until_told(sctp, told, chunks) == MAX_MISORDERED + 1


async def test_after_the_end_nothing_more_is_taken_and_it_is_said_once(parts: Parts) -> None:
    sctp, told = parts
    await send_until_told(sctp, told, (chunk(n, b"x", flags=_FIRST, stream=n) for n in range(1, 100)))
    before = sctp._advertised_rwnd
    for tsn in range(1000, 1100):
        await sctp._receive_data_chunk(chunk(tsn, bytes(1000)))
    assert (sctp._advertised_rwnd, told) == (before, ["excess"])


async def test_the_largest_control_message_passes(parts: Parts) -> None:
    sctp, told = parts
    last = 55
    for number in range(1, 4 * last + 1):
        place = (number - 1) % last
        flags = (_FIRST if place == 0 else 0) | (_LAST if place == last - 1 else 0)
        await sctp._receive_data_chunk(chunk(number, bytes(1200), flags=flags, seq=(number - 1) // last))
    assert told == []
