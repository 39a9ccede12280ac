"""Handles HTTP connections: limits heads of requests, and disconnects clients that stop reading."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import secrets
import socket
import struct
import termios
import time
from collections.abc import Callable
from typing import Any

from aiohttp import StreamReader, hdrs, web
from aiohttp.typedefs import Handler, Middleware
from aiohttp.web_request import BaseRequest

from streamer.core.event_loop_selector import TurnLoop
from streamer.http.connection_limits import ConnectionLimiter, ReadLimiter, TrackedConnection
from streamer.http.problem_details import PROBLEM_TYPE, Problem, request_id

#: Seconds between two checks, and the bytes that a client must take in this time to stay connected.
CHECK_S = 10.0
MIN_TAKEN_BYTES = 4 << 10
#: The kernel drops a connection whose client takes nothing for this many seconds, even after we closed it.
STALLED_S = 30.0
#: Most bytes that one read takes from the socket of a stream. The messages in them are parsed at once, and
#: 64 KiB hold some 200 of the smallest frames.
STREAM_READ_BYTES = 64 << 10


def limit_stall(transport: asyncio.BaseTransport) -> None:
    """Make the kernel end the connection if bytes stay unacknowledged or unsent for too long."""
    raw = transport.get_extra_info("socket")
    if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLED_S * 1e3))


class StallDetector:
    """Watches one connection while the buffer of its transport is full, and ends it if its client stalls."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0

    def start(self) -> None:
        """Start watching, because the transport's buffer is full."""
        self._unsent_bytes = _unsent_bytes(self._transport)
        self._schedule()

    def stop(self) -> None:
        """Stop watching, because the transport has room again or is closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(CHECK_S, self._check)

    def _check(self) -> None:
        unsent_bytes = _unsent_bytes(self._transport)
        if self._unsent_bytes - unsent_bytes < MIN_TAKEN_BYTES:
            self._timer = None
            self._transport.abort()
            return
        self._unsent_bytes = unsent_bytes
        self._schedule()


def _unsent_bytes(transport: asyncio.Transport) -> int:
    """Return the bytes in the transport and in the kernel that the client has not acknowledged."""
    kernel_bytes = 0
    raw = transport.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        with contextlib.suppress(OSError):
            answer = fcntl.ioctl(raw.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
            (kernel_bytes,) = struct.unpack("i", answer)
    return transport.get_write_buffer_size() + kernel_bytes


log = logging.getLogger("streamer.handler")

#: Value of the `Server` header; it reveals neither language nor version.
SERVER_NAME = "streamer"
MAX_LINE_BYTES = 8190
MAX_HEADERS = 64
#: Paths that are answered even if there are more connections than allowed.
PROBES = ("/livez", "/health", "/metrics")
#: Most bytes that all lines of a request's head have together. The head stays in memory until the answer.
MAX_HEAD_BYTES = 32 << 10


class ConnectionHandler(web.RequestHandler):
    """Extends aiohttp's protocol of one connection by limits, and by answers to input that is not HTTP."""

    __slots__ = (
        "_body",
        "_head_bytes",
        "_is_websocket",
        "_limiter",
        "_stall_detector",
        "_stream_fd",
        "read_limiter",
        "tracked",
    )

    def __init__(
        self,
        *arguments: Any,
        tracked: TrackedConnection | None = None,
        limiter: ConnectionLimiter | None = None,
        **options: Any,
    ) -> None:
        """Create the protocol; ``tracked`` is this connection's entry in ``limiter``.

        ``tracked`` is None for connections that other workers open to forward requests; these do not count.
        """
        super().__init__(*arguments, **options)
        self.tracked = tracked
        self._limiter = limiter
        #: Limiter in front of the WebSocket reader that the next upgrade installs; None on other routes.
        self.read_limiter: ReadLimiter | None = None
        #: None until the connection is made.
        self._stall_detector: StallDetector | None = None
        #: Bytes received of a head that is not complete yet.
        self._head_bytes = 0
        #: Body of the newest request; None before the first one.
        self._body: StreamReader | None = None
        self._is_websocket = False
        #: Descriptor that the event loop treats as a stream; None if the connection is not a WebSocket.
        self._stream_fd: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Prepare to end the new connection if its client does not read."""
        super().connection_made(transport)
        limit_stall(transport)
        if isinstance(transport, asyncio.Transport):
            self._stall_detector = StallDetector(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop counting a connection that has ended."""
        if self.tracked is not None and self._limiter is not None:
            self._limiter.remove(self.tracked)
        if self._stream_fd is not None and isinstance(self._loop, TurnLoop):
            self._loop.turns.streams.discard(self._stream_fd)
        super().connection_lost(exc)
        self._data_received_cb = None  # a method of the WebSocket, which refers to this connection
        if self._stall_detector is not None:
            self._stall_detector.stop()

    def pause_writing(self) -> None:
        """Watch whether the client reads, because the transport's buffer is full."""
        super().pause_writing()
        if self._stall_detector is not None:
            self._stall_detector.start()

    def resume_writing(self) -> None:
        """Stop watching, because the transport's buffer has room again."""
        super().resume_writing()
        if self._stall_detector is not None:
            self._stall_detector.stop()

    def data_received(self, data: bytes) -> None:
        """Handle bytes of a head, of a body or of a WebSocket."""
        if self._is_websocket:
            super().data_received(data)
            return
        heads = self._request_count
        # Decide this before parsing: these bytes may complete a body, and they may be more than a head may
        # have.
        in_head = self._body is None or self._body.is_eof()
        super().data_received(data)
        size_bytes = self._head_bytes + len(data)
        self._head_bytes = 0
        if self._request_count != heads:
            message, self._body = self._messages[-1]
            # Most of these bytes may belong to the body, so compute the exact size of the head.
            if size_bytes > MAX_HEAD_BYTES and _head_bytes(message) > MAX_HEAD_BYTES:
                self._refuse_head()
        elif in_head:
            self._head_bytes = size_bytes
            if size_bytes > MAX_HEAD_BYTES:
                self._refuse_head()

    def _refuse_head(self) -> None:
        """Answer 431 to a head that is too large, drop everything else that arrives, and close."""
        problem = Problem(
            431,
            "malformed_request",
            f"The head of the request is too large: {MAX_HEAD_BYTES} bytes are allowed.",
        )
        body = json.dumps(problem.members(secrets.token_hex(8))).encode()
        head = (
            f"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: {PROBLEM_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        if self.transport is not None and self._current_request is None:
            self.transport.write(head.encode() + body)
        self._messages.clear()
        self.force_close()

    # aiohttp's reader is compiled and its classes are private, so the parameter is typed as Any.
    def set_parser(self, parser: Any, data_received_cb: Callable[[], None] | None = None) -> None:
        """Install the reader of a WebSocket, behind its limiter if there is one."""
        self._is_websocket = True
        raw = self.transport.get_extra_info("socket") if self.transport is not None else None
        if raw is not None and isinstance(self._loop, TurnLoop):
            self._stream_fd = raw.fileno()
            self._loop.turns.streams.add(raw.fileno())
            # asyncio's transports for sockets have this attribute; the default is 256 KiB.
            self.transport.max_size = STREAM_READ_BYTES  # type: ignore[union-attr]
        limiter, self.read_limiter = self.read_limiter, None
        if limiter is not None:
            limiter.attach(parser)
            parser = limiter
        super().set_parser(parser, data_received_cb)

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to a request that reached no route or whose answer failed.

        The connection is closed after this answer. Raises ConnectionError if an answer is being sent already.
        """
        identifier = secrets.token_hex(8)
        if status >= 500:
            log.error("request %s failed outside of its route", identifier, exc_info=exc)
        else:
            log.debug("refused a malformed request: %s", message)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is on its way already, no other can be sent")
        problem = Problem.internal()
        if status < 500:
            problem = Problem(
                status,
                "malformed_request",
                "The request is not valid HTTP, or its head is too large: "
                f"{MAX_LINE_BYTES} bytes a line and {MAX_HEADERS} headers are allowed.",
            )
        response = problem.response(identifier)
        # The code that adds these headers to all other answers did not run.
        response.headers[hdrs.SERVER] = SERVER_NAME
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.force_close()
        return response


def _head_bytes(message: Any) -> int:
    """Return the bytes of a head's lines; 0 for the placeholder of a malformed request."""
    headers = getattr(message, "raw_headers", ())
    return sum(len(name) + len(value) + len(b": \r\n") for name, value in headers)


def limit_reader(request: BaseRequest, limiter: ReadLimiter) -> None:
    """Put ``limiter`` in front of the reader that upgrading ``request`` to a WebSocket will install."""
    if not isinstance(request.protocol, ConnectionHandler):
        raise TypeError(f"the connection is a {type(request.protocol).__name__}, not a ConnectionHandler")
    request.protocol.read_limiter = limiter


def limit_connections(
    limiter: ConnectionLimiter, is_draining: Callable[[], float] = lambda: False
) -> Middleware:
    """Return the middleware that reports requests to ``limiter``.

    While ``limiter`` is over its limit, only probes get their usual answer. During that time, and while
    ``is_draining`` returns true, each connection is closed after its answer.
    """

    @web.middleware
    async def limit(request: web.Request, handler: Handler) -> web.StreamResponse:
        tracked: TrackedConnection | None = getattr(request.protocol, "tracked", None)
        if tracked is None:  # another worker forwarded the request
            response = await handler(request)
            if is_draining() and not response.prepared:
                response.force_close()
            return response
        limiter.request_started(tracked)
        try:
            over = limiter.over
            if over and request.path not in PROBES:
                problem = Problem.unavailable(
                    "Too many connections are open here; try again.", retry_after_s=5
                )
                response = problem.response(request_id(request))
            else:
                response = await handler(request)
            if (over or is_draining()) and not response.prepared:
                response.force_close()
            return response
        finally:
            # The event loop uses this clock, too; reading it directly saves looking up the loop.
            limiter.request_ended(tracked, time.monotonic())

    return limit
