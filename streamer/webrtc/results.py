"""Results of a session over HTTP: server-sent events, or a WebSocket that also takes control messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from streamer.http.body import BUDGET
from streamer.http.caller import identity_of
from streamer.http.problem_details import Problem
from streamer.protocol.server_messages import ServerMessage
from streamer.protocol.wire import SUBPROTOCOL_JSON, SUBPROTOCOLS, encode_message
from streamer.webrtc.result_subscriber import Listener
from streamer.websocket.outbox import Encoded

if TYPE_CHECKING:
    from streamer.webrtc.peer_session import PeerSession

#: A comment this often keeps proxies from closing a quiet stream of events.
KEEP_ALIVE_S = 15.0
#: What a reader does not take within this time ends it.
SEND_S = 10.0


async def serve_results(request: web.Request, session: PeerSession) -> web.StreamResponse:
    """Send the session's messages until either side ends. Raises Problem 503 when too many read already."""
    socket = _make_socket(request)
    encode = _event if socket is None else _encoder(socket, request)
    client = identity_of(request).name
    listener = session.listen(encode, lambda: request.app[BUDGET].hold(client, "messages"))
    if listener is None:
        raise Problem.unavailable("Too many readers of this session are connected.", retry_after_s=5)
    try:
        if socket is not None:
            return await _serve_websocket(request, socket, session, listener)
        return await _serve_events(request, listener)
    finally:
        listener.drop()
        session.leave(listener)


def _make_socket(request: web.Request) -> web.WebSocketResponse | None:
    """Return the WebSocket that the request asks for, not opened yet; None when it asks for events."""
    if request.headers.get("Upgrade", "").lower() != "websocket":
        return None
    return web.WebSocketResponse(protocols=SUBPROTOCOLS, compress=False, heartbeat=20, max_msg_size=64 << 10)


def _encoder(socket: web.WebSocketResponse, request: web.Request) -> Callable[[ServerMessage], Encoded]:
    protocol = socket.can_prepare(request).protocol or SUBPROTOCOL_JSON
    return lambda message: encode_message(message, protocol)


async def _serve_events(request: web.Request, listener: Listener) -> web.StreamResponse:
    """Events named by the message's `type`; `id` is the frame's `seq`."""
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            # nginx would collect events otherwise.
            "X-Accel-Buffering": "no",
        }
    )
    await response.prepare(request)
    await response.write(b"retry: 1000\n\n")
    with contextlib.suppress(ConnectionError, TimeoutError):
        while True:
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    event = await listener.take()
            except TimeoutError:
                await response.write(b": still here\n\n")
                continue
            if event is None:
                break
            async with asyncio.timeout(SEND_S):
                await response.write(event if isinstance(event, bytes) else event.encode())
        await response.write_eof()
    return response


def _event(message: Mapping[str, object]) -> bytes:
    number = f"id: {message['seq']}\n" if "seq" in message else ""
    text = json.dumps(message, separators=(",", ":"), allow_nan=False)
    return f"event: {message['type']}\n{number}data: {text}\n\n".encode()


async def _serve_websocket(
    request: web.Request, socket: web.WebSocketResponse, session: PeerSession, listener: Listener
) -> web.StreamResponse:
    await socket.prepare(request)
    writer = asyncio.create_task(_write(socket, listener), name="results-writer")
    try:
        async for message in socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                session.control_received(message.data)
    finally:
        listener.end()
        writer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writer
    return socket


async def _write(socket: web.WebSocketResponse, listener: Listener) -> None:
    with contextlib.suppress(ConnectionError, TimeoutError, RuntimeError):
        while (encoded := await listener.take()) is not None:
            async with asyncio.timeout(SEND_S):
                if isinstance(encoded, str):
                    await socket.send_str(encoded)
                else:
                    await socket.send_bytes(encoded)
    await socket.close(code=1000)
