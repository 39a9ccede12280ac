"""Clients that send or connect all at once leave the event loop to others after a few milliseconds."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import WSMessage, WSMsgType, web

from streamer.core.event_loop_selector import Iteration
from streamer.websocket import hub as hub_module
from streamer.websocket.connection import MAX_ITERATION_S, Connection
from streamer.websocket.writer import StreamSocket
from tests.unit.test_dispatcher import Rig, rig
from tests.unit.test_lost_connections import Hub, serve

__all__ = ["rig"]

FRAMES = 50
FRAME = WSMessage(WSMsgType.BINARY, b"\x01 a frame", None)
END = WSMessage(WSMsgType.CLOSE, None, None)


class Turns:
    """Counts the iterations of the running event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self.count += 1
        self._next = self._loop.call_soon(self._turn)

    def stop(self) -> None:
        self._next.cancel()


async def turns_of_frames(iteration: Iteration) -> list[int]:
    """Read frames that have all arrived; return the iteration in which each one was taken."""
    turns, taken = Turns(), list[int]()
    messages = iter([FRAME] * FRAMES + [END])

    async def receive() -> WSMessage:
        return next(messages)

    connection: Any = SimpleNamespace(
        _bye_received=False,
        _writer=(),
        _socket=SimpleNamespace(receive=receive),
        _read_limiter=SimpleNamespace(message_read=lambda: None),
        _iteration=iteration,
        _frames=SimpleNamespace(receive=lambda _data, _now: taken.append(turns.count)),
        last_received=0.0,
    )
    await Connection._read(cast("Connection", connection))
    turns.stop()
    return taken


async def test_frames_that_have_all_arrived_give_others_a_turn_once_an_iteration_takes_long() -> None:
    iteration = Iteration()
    iteration.started = asyncio.get_running_loop().time() - 2 * MAX_ITERATION_S
    assert len(set(await turns_of_frames(iteration))) == FRAMES


async def test_frames_of_an_iteration_that_has_just_begun_are_read_at_once() -> None:
    assert len(set(await turns_of_frames(Iteration()))) == 1


async def test_few_upgrades_are_carried_out_in_one_iteration(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.child.greet()
    hub = Hub(rig)
    count = 5 * hub_module._UPGRADES_PER_ITERATION
    all_arrived, arrived = asyncio.Event(), Counter[str]()
    turns, upgrades = Turns(), Counter[int]()
    handle, prepare = hub.handle, StreamSocket.prepare

    async def handle_together(request: web.Request) -> web.StreamResponse:
        arrived["requests"] += 1
        if arrived["requests"] == count:
            all_arrived.set()
        await all_arrived.wait()
        return await handle(request)

    async def counted(self: StreamSocket, request: web.BaseRequest) -> Any:
        if not self.prepared:  # aiohttp calls this again at the end
            upgrades[turns.count] += 1
        return await prepare(self, request)

    async def open_one(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect(url, protocols=["detect.v1.json"]) as socket:
            hello = {"type": "hello", "streams": [{"id": 0, "codec": "png"}], "collect": False}
            await socket.send_json(hello)
            assert (await socket.receive_json())["type"] == "welcome"

    monkeypatch.setattr(hub, "handle", handle_together)
    monkeypatch.setattr(StreamSocket, "prepare", counted)
    # This test is about upgrades, and not about how many of one address may be unfinished.
    monkeypatch.setattr(hub._handshakes, "take", lambda _address: None)
    monkeypatch.setattr(hub._handshakes, "release", lambda _address: None)
    runner, server = await serve(hub)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/stream"
    connector = aiohttp.TCPConnector(limit=0)
    try:
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.timeout(60):
            await asyncio.gather(*(open_one(session) for _ in range(count)))
    finally:
        turns.stop()
        server.close()
        await runner.cleanup()
    assert sum(upgrades.values()) == count
    assert max(upgrades.values()) <= hub_module._UPGRADES_PER_ITERATION
