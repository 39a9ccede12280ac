"""A WebSocket whose connection is lost leaves memory at once, without a garbage collection."""

from __future__ import annotations

import asyncio
import gc
import weakref
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
from aiohttp import web

from streamer.access.identity import ALL_SCOPES, Identity
from streamer.accounting.metrics import WorkerMetrics
from streamer.config.settings import load_settings
from streamer.core.byte_budget import ByteBudget
from streamer.http.caller import IDENTITY
from streamer.http.http_connection import ConnectionHandler
from streamer.imaging.image_header import Limits
from streamer.streams.session import Session
from streamer.websocket.connection import Connection
from streamer.websocket.hub import StreamHub
from streamer.websocket.writer import StreamSocket
from tests.unit.test_dispatcher import Rig, rig

__all__ = ["rig"]


class Hub(StreamHub):
    """Notes the connections that have ended, and their sockets, without keeping them in memory."""

    def __init__(self, rig: Rig) -> None:
        everybody: Any = SimpleNamespace(
            addresses=SimpleNamespace(name=lambda _request: "addr:127.0.0.1"),
            is_still_valid=lambda _identity: True,
        )
        alone: Any = SimpleNamespace(new_id=lambda: "r.0.session")
        # A heartbeat that is due after the test: its timer must not keep the socket until then.
        settings = load_settings(stream_heartbeat_s=3600)
        budget, no_samplers = ByteBudget(1 << 20), cast("Any", None)
        metrics, limits = WorkerMetrics(), Limits()
        super().__init__(rig.dispatcher, metrics, settings, limits, everybody, no_samplers, alone, budget)
        self.ended: list[weakref.ref[Connection] | weakref.ref[StreamSocket]] = []
        self.kept: list[Session] = []

    def leave(self, connection: Connection, *, resumable: bool) -> None:
        super().leave(connection, resumable=resumable)
        self.ended += [weakref.ref(connection), weakref.ref(connection._socket)]
        if resumable:
            self.kept.append(connection.session)


async def serve(hub: Hub) -> tuple[web.AppRunner, asyncio.Server]:
    """Serve the hub as a worker does: a lost connection cancels the task that serves it."""

    @web.middleware
    async def identify(request: web.Request, handler: Any) -> web.StreamResponse:
        request[IDENTITY] = Identity("addr:127.0.0.1", ALL_SCOPES, anonymous=True)
        response: web.StreamResponse = await handler(request)
        return response

    app = web.Application(middlewares=[identify])
    app.router.add_get("/{version:v[0-9]+}/stream", hub.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
    await runner.setup()
    loop = asyncio.get_running_loop()
    return runner, await loop.create_server(
        lambda: ConnectionHandler(runner.server, loop=loop, access_log=None), "127.0.0.1", 0
    )


async def test_a_lost_connection_is_not_left_to_the_garbage_collector(rig: Rig) -> None:
    await rig.child.greet()
    hub = Hub(rig)
    runner, server = await serve(hub)
    port = server.sockets[0].getsockname()[1]
    gc.collect()
    gc.disable()
    try:
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}/v1/stream"
            socket = await session.ws_connect(url, protocols=["detect.v1.json"])
            await socket.send_json(
                {"type": "hello", "streams": [{"id": 0, "codec": "png"}], "collect": False}
            )
            assert (await socket.receive_json())["type"] == "welcome"
            socket._response.close()
        async with asyncio.timeout(60):
            while len(hub.ended) < 2 or any(each() is not None for each in hub.ended):
                await asyncio.sleep(0.01)
    finally:
        gc.enable()
        server.close()
        await runner.cleanup()
    assert len(hub.kept) == 1, "its client may resume the session"
