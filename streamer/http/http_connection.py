"""One HTTP connection: bounded in what it buffers, and malformed requests are answered as problems too."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any

from aiohttp import StreamReader, hdrs, web
from aiohttp.typedefs import Handler, Middleware
from aiohttp.web_request import BaseRequest

from streamer.core.turn_selector import TurnLoop
from streamer.http.connection_places import ConnectionPlaces, Guest
from streamer.http.hello_limit import HelloGate
from streamer.http.problem_details import PROBLEM_TYPE, Problem, request_id
from streamer.http.write_watch import WriteWatch, limit_stall

log = logging.getLogger("streamer.handler")

#: Says neither language nor version.
SERVER_NAME = "streamer"
MAX_LINE_BYTES = 8190
MAX_HEADERS = 64
#: What is answered even when there are more connections than allowed.
PROBES = ("/livez", "/health", "/metrics")
#: All lines of one request's head together: it is in memory for as long as its connection serves it.
MAX_HEAD_BYTES = 32 << 10


class ConnectionHandler(web.RequestHandler):
    """aiohttp's protocol of one connection, with bounds of ours and answers to what is not HTTP."""

    __slots__ = (
        "_body",
        "_head_bytes",
        "_is_websocket",
        "_places",
        "_stream_fd",
        "_write_watch",
        "guest",
        "hello_gate",
    )

    def __init__(
        self,
        *arguments: Any,
        guest: Guest | None = None,
        places: ConnectionPlaces | None = None,
        **options: Any,
    ) -> None:
        """``guest`` is its place in ``places``; without one, from another worker, it is not counted."""
        super().__init__(*arguments, **options)
        self.guest = guest
        self._places = places
        #: Stands before the WebSocket reader that the next upgrade installs; None on other routes.
        self.hello_gate: HelloGate | None = None
        #: None until the connection is made.
        self._write_watch: WriteWatch | None = None
        #: Of a head that is not complete yet.
        self._head_bytes = 0
        #: Body of the newest request; None before the first one.
        self._body: StreamReader | None = None
        self._is_websocket = False
        #: As which the loop knows a stream; None for other connections.
        self._stream_fd: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        super().connection_made(transport)
        limit_stall(transport)
        if isinstance(transport, asyncio.Transport):
            self._write_watch = WriteWatch(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection has ended: its place is free."""
        if self.guest is not None and self._places is not None:
            self._places.leave(self.guest)
        if self._stream_fd is not None and isinstance(self._loop, TurnLoop):
            self._loop.turns.streams.discard(self._stream_fd)
        super().connection_lost(exc)
        if self._write_watch is not None:
            self._write_watch.end()

    def pause_writing(self) -> None:
        """The transport is full: the client must take some of it."""
        super().pause_writing()
        if self._write_watch is not None:
            self._write_watch.begin()

    def resume_writing(self) -> None:
        """The transport has room again."""
        super().resume_writing()
        if self._write_watch is not None:
            self._write_watch.end()

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived: of a head, of a body, or of a WebSocket."""
        if self._is_websocket:
            super().data_received(data)
            return
        heads = self._request_count
        # Asked before: what ends a body may be more bytes than a head may have.
        in_head = self._body is None or self._body.is_eof()
        super().data_received(data)
        size_bytes = self._head_bytes + len(data)
        self._head_bytes = 0
        if self._request_count != heads:
            message, self._body = self._messages[-1]
            # Most of it may be a body; the exact size costs a walk.
            if size_bytes > MAX_HEAD_BYTES and _head_bytes(message) > MAX_HEAD_BYTES:
                self._refuse_head()
        elif in_head:
            self._head_bytes = size_bytes
            if size_bytes > MAX_HEAD_BYTES:
                self._refuse_head()

    def _refuse_head(self) -> None:
        """Answer a head that is too large, whatever else is on its way here, and close."""
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

    # The reader of aiohttp is compiled and its classes are private: it is passed on as it comes.
    def set_parser(self, parser: Any, data_received_cb: Callable[[], None] | None = None) -> None:
        """Install the reader of a WebSocket, behind the gate where there is one."""
        self._is_websocket = True
        raw = self.transport.get_extra_info("socket") if self.transport is not None else None
        if raw is not None and isinstance(self._loop, TurnLoop):
            self._stream_fd = raw.fileno()
            self._loop.turns.streams.add(raw.fileno())
        gate, self.hello_gate = self.hello_gate, None
        if gate is not None:
            gate.put_before(parser)
            parser = gate
        super().set_parser(parser, data_received_cb)

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to a request that never reached a route, or whose answer failed; then close.

        Raises ConnectionError when an answer is on its way already.
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
        # No route has run, so nothing has added what all other answers have.
        response.headers[hdrs.SERVER] = SERVER_NAME
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.force_close()
        return response


def _head_bytes(message: Any) -> int:
    """Return the bytes of a head's lines; 0 for what stands in for a malformed one."""
    headers = getattr(message, "raw_headers", ())
    return sum(len(name) + len(value) + len(b": \r\n") for name, value in headers)


def guard_reader(request: BaseRequest, gate: HelloGate) -> None:
    """Put ``gate`` before the reader that upgrading ``request`` to a WebSocket will install."""
    if not isinstance(request.protocol, ConnectionHandler):
        raise TypeError(f"the connection is a {type(request.protocol).__name__}, not a ConnectionHandler")
    request.protocol.hello_gate = gate


def limit_connections(
    places: ConnectionPlaces, is_draining: Callable[[], float] = lambda: False
) -> Middleware:
    """Return what tells the places of requests, and refuses all but probes while it is over its limit.

    While ``is_draining``, as when it is over its limit, connections end with their answer.
    """

    @web.middleware
    async def limit(request: web.Request, handler: Handler) -> web.StreamResponse:
        guest: Guest | None = getattr(request.protocol, "guest", None)
        if guest is None:  # another worker has passed the request on
            response = await handler(request)
            if is_draining() and not response.prepared:
                response.force_close()
            return response
        places.begin(guest)
        try:
            over = places.over
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
            # The clock of the loop, without asking for the loop.
            places.end(guest, time.monotonic())

    return limit
