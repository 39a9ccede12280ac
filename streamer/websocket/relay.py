"""Carries the WebSocket of a client to another replica, which has room for its stream.

A load balancer sends a client back to the replica that it knows. If that replica has asked the stream to
move, or has no room for it, it opens a WebSocket at the other replica and passes the messages on in both
directions for as long as the client stays. The other replica serves the stream as if the client had reached
it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import aiohttp
from aiohttp import WSMsgType, web

from streamer.access.identity import Identity
from streamer.config.replica_addresses import HOP_HEADER
from streamer.http.connection_limits import ReadLimiter
from streamer.protocol import server_messages
from streamer.protocol.client_messages import Hello
from streamer.protocol.close_codes import CloseCode, CloseConnection
from streamer.protocol.wire import encode_message
from streamer.replicas.rebalancer import Rebalancer
from streamer.replicas.session_router import SessionRouter
from streamer.websocket.writer import StreamSocket

#: Close codes that only libraries report: they cannot be sent.
_NOT_SENT = {1005, 1006, 1015}
_CLOSE_S = 2.0
#: What a send raises when the socket is gone.
_GONE = (ConnectionError, RuntimeError, aiohttp.ClientError)

Socket = StreamSocket | aiohttp.ClientWebSocketResponse


class Relayed(Exception):
    """Another replica has accepted the stream; :meth:`Relay.run` continues the connection."""


class Relay:
    """Decides whether one connection is passed on, and passes it on. The hub owns it.

    ``rebalancer`` is None where streams are not moved. ``send_s`` is the longest time of one send.
    """

    def __init__(
        self,
        request: web.Request,
        socket: StreamSocket,
        subprotocol: str,
        router: SessionRouter,
        rebalancer: Rebalancer | None,
        send_s: float,
    ) -> None:
        self._request = request
        self.socket = socket
        self.subprotocol = subprotocol
        self._router = router
        # A stream that another replica has passed on stays here, so that it does not go round in circles.
        self._rebalancer = None if HOP_HEADER in request.headers else rebalancer
        self._send_s = send_s
        self._upstream: aiohttp.ClientWebSocketResponse | None = None
        self._closing: CloseConnection | None = None
        #: The end of the connection in progress, which must be kept from garbage collection.
        self._ending: asyncio.Task[None] | None = None
        #: Whether this replica has no room for the stream.
        self.refused_here = False
        #: Whose ticket the hello contained, which is used up; None if it contained none.
        self.redeemed: Identity | None = None
        #: The client's hello, for the other replica.
        self.hello: str | bytes = b""

    @property
    def arrived_relayed(self) -> bool:
        """Whether another replica has passed this connection on to this one."""
        return HOP_HEADER in self._request.headers

    @property
    def taken(self) -> bool:
        """Whether another replica has taken the stream."""
        return self._upstream is not None

    @property
    def may_help(self) -> bool:
        """Whether a stream that finds no room here may belong to another replica, or find room at one."""
        return self._rebalancer is not None and self._rebalancer.can_help

    async def offer(self, hello: Hello) -> None:
        """Pass the stream on if it belongs elsewhere, or has no room here. Raises Relayed if it was."""
        rebalancer = self._rebalancer
        if rebalancer is None:
            return
        name = None if hello.resume is None else rebalancer.destination(hello.resume.session)
        if name is None and self.refused_here:
            name = rebalancer.place()
        if name is not None:
            await self.pass_to(name)

    async def pass_to(self, name: str) -> None:
        """Pass the stream on to a replica. Raises Relayed; returns if the replica does not take it."""
        if self._rebalancer is None:
            return
        self._upstream = await self._router.open_stream(name, self._request, self.redeemed)
        if self._upstream is not None:
            raise Relayed
        self._rebalancer.refused(name)

    async def run(self, limiter: ReadLimiter) -> None:
        """Send the hello to the other replica, and pass messages on until either side closes."""
        upstream = self._upstream
        if upstream is None:
            raise RuntimeError("no replica has taken this stream")
        upward = asyncio.create_task(self._carry_up(upstream, limiter), name="relay")
        try:
            await _send(upstream, self.hello)
            await self._pump(upstream, self.socket)
        except TimeoutError:
            self._closing = CloseConnection(CloseCode.SLOW_CONSUMER, "a send took too long")
        except _GONE:
            pass
        finally:
            upward.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await upward
            code = upstream.close_code
            if code is None or code in _NOT_SENT:
                code = CloseCode.RESTART
            closing = self._closing or CloseConnection(code, "closed by the replica that has the stream")
            await _close(self.socket, closing.code, closing.reason)
            await _close(upstream, CloseCode.DONE, "")

    def send_bye(self, text: str, reconnect_ms: int) -> None:
        """Ask the client to reconnect, because this replica shuts down, and end the connection."""
        bye = server_messages.bye(CloseCode.RESTART.value, text, reconnect_ms=reconnect_ms)
        self._closing = CloseConnection(CloseCode.RESTART, text)
        encoded = encode_message(bye, self.subprotocol)
        self._ending = asyncio.create_task(self._end(encoded), name="relay-end")

    async def _end(self, bye: str | bytes) -> None:
        with contextlib.suppress(TimeoutError, *_GONE):
            async with asyncio.timeout(_CLOSE_S):
                await _send(self.socket, bye)
        if self._upstream is not None:
            await _close(self._upstream, CloseCode.DONE, "")

    async def _carry_up(self, upstream: aiohttp.ClientWebSocketResponse, limiter: ReadLimiter) -> None:
        """Pass the client's messages on. When it is gone, the other replica keeps its session for a while."""
        with contextlib.suppress(TimeoutError, *_GONE):
            await self._pump(self.socket, upstream, limiter.message_read)
        await _close(upstream, CloseCode.DONE, "")

    async def _pump(self, source: Socket, target: Socket, was_read: Callable[[], None] | None = None) -> None:
        """Pass messages on until the source closes. Raises TimeoutError if a send takes too long."""
        async for message in source:
            if was_read is not None:
                was_read()
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                async with asyncio.timeout(self._send_s):
                    await _send(target, message.data)


async def _send(socket: Socket, data: str | bytes) -> None:
    if isinstance(data, str):
        await socket.send_str(data)
    else:
        await socket.send_bytes(data)


async def _close(socket: Socket, code: int, reason: str) -> None:
    """Close a socket; never raises, and takes a bounded time."""
    with contextlib.suppress(TimeoutError, *_GONE):
        async with asyncio.timeout(_CLOSE_S):
            await socket.close(code=code, message=reason.encode())
