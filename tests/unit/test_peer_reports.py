"""Replicas that answer nonsense, slowly or not at all are not believed, and disturb nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from streamer.config.replica_addresses import HOP_HEADER, Address, Replicas
from streamer.replicas import peer_reports
from streamer.replicas.load_report import LoadReport
from streamer.replicas.peer_reports import LOAD_PATH, MOST_BYTES, PeerReports
from streamer.replicas.rebalance_policy import STALE_S, PeerReport, RebalancePolicy
from streamer.replicas.rebalancer import Rebalancer

GOOD = LoadReport(0.25, 3, 42.0, available=True)
OWN = Address("127.0.0.1", 9)
#: The fields of a report after its load.
REST = ', "streams": 1, "capacity_fps": 1, "available": true, "can_move": true}'

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Peer:
    """A replica whose answer a test decides."""

    def __init__(self) -> None:
        self.answer: Handler = answering(GOOD.to_state())
        self.asked: list[str] = []
        app = web.Application()
        app.router.add_get(LOAD_PATH, self._handle)
        self.server = TestServer(app)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.headers[HOP_HEADER])
        return await self.answer(request)

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", int(self.server.port or 0))


def answering(state: Any, status: int = 200) -> Handler:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=state if isinstance(state, str) else json.dumps(state), status=status)

    return answer


async def resolved(address: Address) -> list[Address]:
    return [address]


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    made = Peer()
    await made.server.start_server()
    yield made
    await made.server.close()


@pytest.fixture
async def reports(peer: Peer) -> AsyncIterator[PeerReports]:
    made = PeerReports(Replicas(OWN, (OWN, peer.address), resolved))
    yield made
    await made.close()


async def test_a_good_report_is_read(peer: Peer, reports: PeerReports) -> None:
    await reports.ask()
    assert {name: report.load for name, report in reports.latest.items()} == {peer.address.name: GOOD}
    assert peer.asked == [OWN.name], "and this replica does not ask itself"


async def moved(_request: web.Request) -> web.Response:
    raise web.HTTPFound("http://192.0.2.1/")


async def cut_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize(
    "answer",
    [
        answering("not json"),
        answering("[1, 2]"),
        answering("[" * 2000),
        answering({}),
        answering(GOOD.to_state() | {"load": "0.1"}),
        answering(GOOD.to_state() | {"load": True}),
        answering(GOOD.to_state() | {"load": -0.1}),
        answering(GOOD.to_state() | {"load": 1e300}),
        answering('{"load": NaN' + REST),
        answering('{"load": Infinity' + REST),
        answering('{"load": ' + "9" * 1000 + REST),
        answering(GOOD.to_state() | {"can_move": None}),
        answering(GOOD.to_state() | {"streams": 1.5}),
        answering(GOOD.to_state() | {"available": 1}),
        answering(GOOD.to_state() | {"padding": "x" * MOST_BYTES}),
        answering(GOOD.to_state(), status=403),
        moved,
        cut_off,
    ],
)
async def test_nonsense_is_no_report(peer: Peer, reports: PeerReports, answer: Handler) -> None:
    peer.answer = answer
    await reports.ask()
    assert peer.asked
    assert reports.latest == {}


async def test_a_replica_that_fails_keeps_its_last_report_until_it_is_too_old(
    peer: Peer, reports: PeerReports, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reports.ask()
    peer.answer = answering("not json")
    await reports.ask()
    assert peer.address.name in reports.latest
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + STALE_S + 1)
    await reports.ask()
    assert reports.latest == {}


async def test_a_replica_that_does_not_answer_holds_up_no_other(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_reports, "ANSWER_S", 0.2)
    silent = Peer()
    stop = asyncio.Event()

    async def wait(_request: web.Request) -> web.Response:
        await stop.wait()
        return web.Response()

    silent.answer = wait
    await silent.server.start_server()
    reports = PeerReports(Replicas(OWN, (OWN, silent.address, peer.address), resolved))
    try:
        async with asyncio.timeout(60):
            # On a busy machine the other one may answer too late the first time.
            while not reports.latest:
                await reports.ask()
        assert reports.latest.keys() == {peer.address.name}
    finally:
        stop.set()
        await reports.close()
        await silent.server.close()


class Shared:
    """The shared memory of a replica's processes."""

    def __init__(self) -> None:
        self.fields: dict[str, float] = {}

    def post(self, field: str, value: float) -> None:
        self.fields[field] = value

    def read(self, field: str) -> float:
        return self.fields.get(field, 0.0)


def rebalancer(peer: Peer, own_load: float) -> Rebalancer:
    """Return a rebalancer of a replica with this load, which has just heard of the peer."""
    own = LoadReport(own_load, 12, 42.0, available=True)
    made = Rebalancer(
        Replicas(OWN, (OWN, peer.address), resolved),
        lambda: own,
        RebalancePolicy(1.0),
        Shared(),
        lambda _: None,
        resume_s=30.0,
    )
    made._reports.latest[peer.address.name] = PeerReport(GOOD, time.monotonic())
    return made


def test_a_session_goes_back_to_the_replica_that_has_it_while_this_one_is_full(peer: Peer) -> None:
    session = f"{peer.address.name}-0-{'a' * 24}"
    assert rebalancer(peer, 0.9).destination(session) == peer.address.name
    assert rebalancer(peer, 0.5).destination(session) is None, "this one has room: it takes the session over"
    assert rebalancer(peer, 0.9).destination(f"{OWN.name}-0-{'a' * 24}") is None
    assert rebalancer(peer, 0.9).destination("x") is None


def test_a_replica_that_has_room_for_nobody_helps_nobody(peer: Peer) -> None:
    full = rebalancer(peer, 1.2)
    assert full.can_help
    assert full.place() == peer.address.name
    full._reports.latest.clear()
    assert not full.can_help
    assert full.place() is None
