"""Tests the client's video stream: outcomes, refusals, and a server that dies and is started again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import aiohttp
import numpy as np
import psutil
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiortc import RTCPeerConnection, RTCSessionDescription

from streamer.client import (
    BadInput,
    Params,
    Rejected,
    Result,
    StreamClosed,
    UnreadOutcomes,
    frame_stream,
)
from streamer.client.address import video_address
from streamer.client.errors import ConnectionFailed
from streamer.client.frame_stream import Phase, State
from streamer.client.options import Options
from streamer.client.results import Drop, Outcome
from streamer.client.video_connection import FrameTrack, VideoConnection
from streamer.client.video_stream import VideoStream
from tests.helpers.service import PATIENT, Service

KEY = "dummy-key"


@pytest.fixture(scope="module")
def guarded() -> Iterator[Service]:
    """Yield a service that requires a key."""
    settings = PATIENT | {"API_KEYS": KEY}
    with Service(settings) as running:
        yield running


def grey(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return a grey frame whose sides are odd numbers of pixels, 161x121."""
    return np.full((121, 161, 3), 40 + number % 100, np.uint8)


async def feed(stream: VideoStream, seconds: float, fps: float = 10, *, first: int = 0) -> None:
    """Offer frames at ``fps``, numbered from ``first``; the tag of each frame is its number."""
    for number in range(first, first + int(seconds * fps)):
        stream.offer(grey(number), tag=number)
        await asyncio.sleep(1 / fps)


async def read(stream: VideoStream, outcomes: list[Outcome]) -> None:
    async for outcome in stream:
        outcomes.append(outcome)  # noqa: PERF401 - others look at the list meanwhile


async def test_every_frame_taken_has_one_outcome_with_its_own_tag(guarded: Service) -> None:
    outcomes: list[Outcome] = []
    async with VideoStream(guarded.ws_url, token=KEY, params=Params(conf_threshold=0.9)) as stream:
        reader = asyncio.create_task(read(stream, outcomes))
        first = 0
        while sum(isinstance(outcome, Result) for outcome in outcomes) <= 10:
            await feed(stream, 1, first=first)
            first += 10
        assert stream.labels
    await reader
    ledger = stream.ledger
    assert ledger.balance == 0
    assert ledger.in_flight == ledger.waiting == 0
    tags = [outcome.tag for outcome in outcomes]
    assert len(tags) == len(set(tags)) == ledger.sent
    results = [outcome for outcome in outcomes if isinstance(outcome, Result)]
    assert {(result.width, result.height) for result in results} == {(161, 121)}
    assert all(result.round_trip_s < 60 for result in results)
    with pytest.raises(StreamClosed):
        stream.offer(grey(0))


async def test_a_wrong_key_and_a_wrong_class_are_refused_for_good(guarded: Service) -> None:
    with pytest.raises(Rejected, match="API keys"):
        async with VideoStream(guarded.http_url, token=KEY[::-1]):
            pass
    with pytest.raises(BadInput, match="unicorn"):
        async with VideoStream(guarded.http_url, token=KEY, params=Params(classes=["unicorn"])):
            pass


async def test_outcomes_that_nobody_reads_are_bounded(
    guarded: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_stream, "UNREAD_MAX", 3)
    async with VideoStream(guarded.ws_url, token=KEY) as stream:
        taken = 0
        with pytest.raises(UnreadOutcomes):
            while True:
                await stream.send(grey(taken))
                taken += 1
                await asyncio.sleep(0.05)
        await stream.finish()
        assert len([outcome async for outcome in stream]) == taken
        assert stream.ledger.balance == 0


async def test_what_is_no_frame_is_refused_and_not_counted(guarded: Service) -> None:
    async with VideoStream(guarded.ws_url, token=KEY) as stream:
        for wrong in ("a path", b"GIF89a", np.zeros((4, 4), np.float64)):
            with pytest.raises(BadInput):
                await stream.send(wrong)  # type: ignore[arg-type]
            with pytest.raises(BadInput):
                stream.offer(wrong)  # type: ignore[arg-type]
        assert stream.ledger.offered == 0
        assert stream.offer(grey(0))
        assert stream.ledger.balance == 0


async def test_a_worker_that_dies_costs_a_pause(guarded: Service) -> None:
    states: list[State] = []
    outcomes: list[Outcome] = []
    options = Options(give_up_after_s=60)
    async with VideoStream(
        guarded.http_url,
        token=KEY,
        options=options,
        on_state=states.append,
    ) as stream:
        reader = asyncio.create_task(read(stream, outcomes))
        await feed(stream, 1.5)
        (worker,) = guarded.workers
        worker.kill()
        killed = time.monotonic()
        while Phase.WAITING not in [state.phase for state in states]:
            await feed(stream, 0.5)
            assert time.monotonic() - killed < 60
        before = sum(isinstance(outcome, Result) for outcome in outcomes)
        while sum(isinstance(outcome, Result) for outcome in outcomes) < before + 5:
            await feed(stream, 0.5)
            assert time.monotonic() - killed < 120
    await reader
    assert stream.ledger.balance == 0
    assert "disconnected" in {outcome.reason for outcome in outcomes if isinstance(outcome, Drop)}


async def test_a_server_that_falls_silent_leaves_no_sockets_with_who_loses_patience() -> None:
    far = RTCPeerConnection()
    deleting = asyncio.Event()

    async def describe(_: web.Request) -> web.Response:
        return web.json_response({})

    async def answer(request: web.Request) -> web.Response:
        offer = await request.json()
        await far.setRemoteDescription(RTCSessionDescription(offer["sdp"], "offer"))
        await far.setLocalDescription(await far.createAnswer())
        return web.json_response({"session": "s", "sdp": far.localDescription.sdp}, status=201)

    async def say_nothing(_: web.Request) -> web.Response:
        deleting.set()
        await asyncio.sleep(60)
        return web.Response()

    async def no_frame() -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], int]:
        await asyncio.sleep(60)
        return grey(0), 0

    app = web.Application()
    app.router.add_get("/v1/webrtc", describe)
    app.router.add_post("/v1/webrtc", answer)
    app.router.add_delete("/v1/webrtc/s", say_nothing)
    before = udp_sockets()
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        track = FrameTrack(no_frame)
        link = VideoConnection(http, video_address(str(server.make_url("/v1/webrtc")), None), tls=True)
        with pytest.raises(ConnectionFailed, match="within 4 s"):
            await link.open(track, {}, 4.0)
        assert far.sctp is not None
        gatherer = far.sctp.transport.transport.iceGatherer
        ports = {candidate.port for candidate in gatherer.getLocalCandidates()}
        own = {address for address in udp_sockets() - before if address[1] not in ports}
        assert own
        closing = asyncio.create_task(link.close())
        await deleting.wait()
        closing.cancel()
        await asyncio.wait([closing])
        track.stop()
        give_up = time.monotonic() + 60
        while udp_sockets() & own and time.monotonic() < give_up:
            await asyncio.sleep(0.05)
        assert udp_sockets() & own == set()
    await far.close()


def udp_sockets() -> set[tuple[str, int]]:
    """Return the local addresses of the UDP sockets that this process has open."""
    return {each.laddr for each in psutil.Process().net_connections("udp")}
