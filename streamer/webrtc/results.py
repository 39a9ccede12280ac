"""Sends the results of a session on data channels, as server-sent events, or over a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from aiohttp import WSMsgType, web

from streamer.core.byte_budget import Holding
from streamer.http.body import BUDGET
from streamer.http.caller import identity_of
from streamer.http.problem_details import Problem
from streamer.protocol.server_messages import ServerMessage
from streamer.protocol.wire import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK, SUBPROTOCOLS, encode_message
from streamer.websocket.outbox import Encoded, Outbox, OutboxFull

log = logging.getLogger("streamer.webrtc.channels")

RESULTS, CONTROL = "results", "control"
#: While more bytes than this wait in a channel, new results are left out.
RESULTS_WAITING_BYTES = 32 << 10
#: If more bytes than this wait in a channel when another control message is sent, the client counts as not
#: reading, and its session ends.
CONTROL_WAITING_BYTES = 256 << 10


class Channel(Protocol):
    """The part of aiortc's data channels that is used here."""

    label: str
    protocol: str
    readyState: str  # noqa: N815 - the name in the WebRTC API
    bufferedAmount: int  # noqa: N815

    def send(self, data: str | bytes) -> None:
        """Queue one message. Raises when the channel is not open."""

    def on(self, event: str, listener: Callable[..., None]) -> Any:
        """Register a listener."""

    def close(self) -> None:
        """Close the channel."""


class ChannelFull(Exception):
    """The client does not read its control messages."""


class Channels:
    """Sends each message on the channel for its type."""

    def __init__(self, on_open: Callable[[], None], on_message: Callable[[str | bytes], None]) -> None:
        self._channels: dict[str, Channel] = {}
        self._on_open = on_open
        self._on_message = on_message
        self.undelivered = 0

    def opened(self, channel: Channel) -> None:
        """Use a channel that the client opened; close it if its label is unknown or already in use."""
        if channel.label not in (RESULTS, CONTROL) or channel.label in self._channels:
            channel.close()
            return
        self._channels[channel.label] = channel
        channel.on("message", self._on_message)
        if channel.label == CONTROL:
            self._on_open()

    @property
    def is_open(self) -> bool:
        """Whether a message would be sent."""
        return any(channel.readyState == "open" for channel in self._channels.values())

    def send(self, message: ServerMessage) -> None:
        """Send one message if there is a channel. Raises ChannelFull."""
        is_result = message["type"] == "result"
        preferred, otherwise = (RESULTS, CONTROL) if is_result else (CONTROL, RESULTS)
        channel = self._channels.get(preferred) or self._channels.get(otherwise)
        if channel is None or channel.readyState != "open":
            return
        if is_result and channel.bufferedAmount > RESULTS_WAITING_BYTES:
            self.undelivered += 1
            return
        if channel.bufferedAmount > CONTROL_WAITING_BYTES:
            raise ChannelFull(f"{channel.bufferedAmount} bytes wait for a client that does not read")
        name = SUBPROTOCOL_MSGPACK if channel.protocol == SUBPROTOCOL_MSGPACK else SUBPROTOCOL_JSON
        channel.send(encode_message(message, name))


#: Most subscribers of one session's results over HTTP.
MAX_SUBSCRIBERS = 8
#: Interval of the comments that keep proxies from closing a quiet stream of events.
KEEP_ALIVE_S = 15.0
#: A subscriber that does not accept a message within this time is ended.
SEND_S = 10.0
#: While at least this many messages wait, the reader counts as slow, and only the newest result is kept. A
#: short delay of the network makes fewer messages wait.
_SLOW_FROM = 8


class ResultSubscriber:
    """Queues the messages for one reader. The session puts them in, and the reader's route takes them."""

    def __init__(self, encode: Callable[[ServerMessage], Encoded], hold: Callable[[], Holding]) -> None:
        self._outbox = Outbox(encode, hold)
        self._filled = asyncio.Event()
        self._ended = False

    def put(self, message: ServerMessage) -> int:
        """Queue one message; returns how many results it replaced. A reader whose queue is full is ended."""
        if self._ended:
            return 0
        try:
            replaced = self._outbox.put(message, replace_results=len(self._outbox) >= _SLOW_FROM)
        except OutboxFull:
            self.end()
            return 0
        self._filled.set()
        return replaced

    def end(self) -> None:
        """Accept no more messages; those that wait are still sent."""
        self._ended = True
        self._filled.set()

    def drop(self) -> None:
        """Accept no more messages and drop those that wait."""
        self.end()
        self._outbox.clear()

    async def take(self) -> Encoded | None:
        """Return the next message in encoded form; None at the end."""
        while True:
            encoded = self._outbox.take()
            if encoded is not None or self._ended:
                return encoded
            self._filled.clear()
            await self._filled.wait()


class ResultSubscribers:
    """Holds those who read the results of one session over HTTP."""

    def __init__(self) -> None:
        self._subscribers: set[ResultSubscriber] = set()

    def __len__(self) -> int:
        return len(self._subscribers)

    def add(
        self, encode: Callable[[ServerMessage], Encoded], hold: Callable[[], Holding]
    ) -> ResultSubscriber | None:
        """Return a new subscriber; None when there are too many."""
        if len(self._subscribers) >= MAX_SUBSCRIBERS:
            return None
        subscriber = ResultSubscriber(encode, hold)
        self._subscribers.add(subscriber)
        return subscriber

    def remove(self, subscriber: ResultSubscriber) -> None:
        """Send no more messages to a subscriber."""
        self._subscribers.discard(subscriber)

    def put(self, message: ServerMessage) -> int:
        """Queue one message for each; returns how many results it replaced."""
        return sum(subscriber.put(message) for subscriber in tuple(self._subscribers))

    def end(self) -> None:
        """Accept no more messages; those that wait are still sent."""
        for subscriber in self._subscribers:
            subscriber.end()


class ResultSource(Protocol):
    """A session whose messages are read over HTTP."""

    def subscribe(
        self, encode: Callable[[ServerMessage], Encoded], hold: Callable[[], Holding]
    ) -> ResultSubscriber | None:
        """Return a new subscriber; None when there are too many."""

    def unsubscribe(self, subscriber: ResultSubscriber) -> None:
        """Stop sending messages to a subscriber."""

    def receive_control(self, data: str | bytes) -> None:
        """Carry out one control message."""


async def serve_results(request: web.Request, session: ResultSource) -> web.StreamResponse:
    """Send the session's messages until either side ends. Raises Problem 503 when it has too many readers."""
    socket = _make_socket(request)
    encode = _event if socket is None else _encoder(socket, request)
    client = identity_of(request).name
    subscriber = session.subscribe(encode, lambda: request.app[BUDGET].hold(client, "messages"))
    if subscriber is None:
        raise Problem.unavailable("Too many readers of this session are connected.", retry_after_s=5)
    try:
        if socket is not None:
            return await _serve_websocket(request, socket, session, subscriber)
        return await _serve_events(request, subscriber)
    finally:
        subscriber.drop()
        session.unsubscribe(subscriber)


def _make_socket(request: web.Request) -> web.WebSocketResponse | None:
    """Return the unopened WebSocket that the request asks for; None when it asks for events."""
    if request.headers.get("Upgrade", "").lower() != "websocket":
        return None
    return web.WebSocketResponse(protocols=SUBPROTOCOLS, compress=False, heartbeat=20, max_msg_size=64 << 10)


def _encoder(socket: web.WebSocketResponse, request: web.Request) -> Callable[[ServerMessage], Encoded]:
    protocol = socket.can_prepare(request).protocol or SUBPROTOCOL_JSON
    return lambda message: encode_message(message, protocol)


async def _serve_events(request: web.Request, subscriber: ResultSubscriber) -> web.StreamResponse:
    """Send server-sent events: `event` is the message's `type`, `id` the frame's `seq`."""
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-store",
            # Without this header nginx buffers events.
            "X-Accel-Buffering": "no",
        }
    )
    await response.prepare(request)
    await response.write(b"retry: 1000\n\n")
    with contextlib.suppress(ConnectionError, TimeoutError):
        while True:
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    event = await subscriber.take()
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
    request: web.Request, socket: web.WebSocketResponse, session: ResultSource, subscriber: ResultSubscriber
) -> web.StreamResponse:
    await socket.prepare(request)
    writer = asyncio.create_task(_write(socket, subscriber), name="results-writer")
    try:
        async for message in socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                session.receive_control(message.data)
    finally:
        subscriber.end()
        writer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writer
    return socket


async def _write(socket: web.WebSocketResponse, subscriber: ResultSubscriber) -> None:
    with contextlib.suppress(ConnectionError, TimeoutError, RuntimeError):
        while (encoded := await subscriber.take()) is not None:
            async with asyncio.timeout(SEND_S):
                if isinstance(encoded, str):
                    await socket.send_str(encoded)
                else:
                    await socket.send_bytes(encoded)
    await socket.close(code=1000)
