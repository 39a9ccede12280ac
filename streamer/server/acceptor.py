"""Accepts connections within the worker's limits, from its port and from the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from inference.ipc.engine_table import TABLE_CHANGED
from streamer.http.connection_limits import ADDRESS_SHARE, ConnectionLimiter, TrackedConnection

log = logging.getLogger("streamer.acceptor")

#: Connections accepted in one turn of the loop, so that the loop serves existing ones before it accepts more.
_PER_TURN = 16
#: Pause in accepting after a connection could not be admitted or descriptors ran out.
PAUSE_S = 0.05
#: Longest time that a connection waits to be admitted. Meanwhile, one more is accepted after each pause.
WAIT_S = 0.5
#: When a connection is closed to make room, its buffered data may be sent for this time. Then its descriptor
#: is freed.
FLUSH_S = 1.0
#: Descriptors kept free for everything else: WebRTC, decoders, files.
_OTHERS = 64
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Accepts connections and serves each that is admitted by a protocol from ``make``.

    It calls ``refused`` for each connection that is not admitted.
    """

    def __init__(
        self,
        listener: socket.socket,
        make: Callable[[TrackedConnection | None], asyncio.Protocol],
        limiter: ConnectionLimiter,
        *,
        accepted: Callable[[], None] = lambda: None,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        """Start accepting on ``listener``.

        ``accepted`` is called for each connection that is accepted from it, even if it is then refused.
        """
        self._listener = listener
        self._make = make
        self._limiter = limiter
        self._accepted = accepted
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        #: Socket on which the supervisor sends connections; None until `adopt_from`.
        self._channel: socket.socket | None = None
        self._on_table: Callable[[], None] = lambda: None
        self._tasks: set[asyncio.Task[object]] = set()
        #: A spare descriptor. It is closed for a moment to accept and refuse a connection when no other
        #: descriptor is free.
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._closed = False
        listener.setblocking(False)
        self._loop.add_reader(listener.fileno(), self._accept)

    def adopt_from(self, channel: socket.socket, on_table: Callable[[], None] = lambda: None) -> None:
        """Serve connections that the supervisor accepted for this worker or its predecessor.

        ``on_table`` is called when the supervisor says that the engine table has changed.
        """
        channel.setblocking(False)
        self._channel = channel
        self._on_table = on_table
        self._loop.add_reader(channel.fileno(), self._adopt)

    def close(self) -> None:
        """Stop accepting."""
        self._closed = True
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        if self._channel is not None:
            self._adopt()
            self._loop.remove_reader(self._channel.fileno())
            self._channel.close()
        if self._spare >= 0:
            os.close(self._spare)

    def _accept(self) -> None:
        for _ in range(_PER_TURN):
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _SHORT:
                    raise
                self._refuse_one(error)
                return
            self._accepted()
            if not self._admit(connection, str(address[0])):
                self._retry_later(connection, str(address[0]), self._loop.time() + WAIT_S)
                self._pause()
                return

    def _admit(self, connection: socket.socket, address: str) -> bool:
        """Serve a connection; return False if it cannot be admitted now."""
        tracked = self._limiter.admit(address, self._loop.time())
        if tracked is None:
            return False
        connection.setblocking(False)
        task = self._loop.create_task(self._serve(connection, tracked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def _retry_later(self, connection: socket.socket, address: str, until: float) -> None:
        """Try again after a pause: by then another connection may be idle for long enough to be closed."""
        self._loop.call_later(PAUSE_S, self._retry, connection, address, until)

    def _retry(self, connection: socket.socket, address: str, until: float) -> None:
        if not self._closed:
            if self._admit(connection, address):
                return
            if self._loop.time() < until:
                self._retry_later(connection, address, until)
                return
        log.warning("refused a connection: %d are open, the limit", self._limiter.total)
        self._refused()
        connection.close()

    async def _serve(self, connection: socket.socket, tracked: TrackedConnection) -> None:
        try:
            transport, _ = await self._loop.connect_accepted_socket(lambda: self._make(tracked), connection)
        except OSError as error:  # the client has left, or no descriptor is free
            log.debug("a connection could not be served: %s", error)
            self._limiter.remove(tracked)
            connection.close()
        else:
            tracked.close = lambda: self._cut(transport)

    def _cut(self, transport: asyncio.Transport) -> None:
        """Close a connection after it has had a short time to send its buffered data."""
        transport.close()
        self._loop.call_later(FLUSH_S, transport.abort)

    def _refuse_one(self, error: OSError) -> None:
        """Accept and close one connection although no descriptor is free.

        If it stayed in the backlog, the loop would be woken for it again and again.
        """
        log.warning("refused a connection: %s", error.strerror)
        self._pause()
        if self._spare < 0:
            return
        os.close(self._spare)
        self._spare = -1
        with contextlib.suppress(OSError):
            self._listener.accept()[0].close()
            self._accepted()
            self._refused()
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _pause(self) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._loop.call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _adopt(self) -> None:
        channel = self._channel
        while channel is not None:
            try:
                data, fds, _, _ = socket.recv_fds(channel, 16, 1)
            except OSError:
                return
            if data == TABLE_CHANGED and not fds:
                self._on_table()
                continue
            if not fds:
                self._loop.remove_reader(channel.fileno())
                return
            connection = socket.socket(fileno=fds[0])
            try:
                address = str(connection.getpeername()[0])
            except OSError:  # the client has left
                connection.close()
                continue
            if not self._admit(connection, address):
                self._retry_later(connection, address, self._loop.time() + WAIT_S)


def limiter_for(connections_max: int, connections_per_address: int) -> ConnectionLimiter:
    """Return a limiter with the given limits; 0 means as many as the descriptors of the process allow."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = sum(1 for _ in Path("/proc/self/fd").iterdir())
    total = connections_max or max(16, min(int(soft * 0.8), soft - in_use - _OTHERS))
    return ConnectionLimiter(total, connections_per_address or max(8, int(total * ADDRESS_SHARE)))


class _Server(Protocol):
    """Describes an object that listens: an `Acceptor`, or a server of asyncio."""

    def close(self) -> None:
        """Stop listening and close the socket."""


async def close_port(
    server: _Server, listener: socket.socket, protocol: Callable[[], asyncio.Protocol]
) -> None:
    """Close ``server``, which listens on ``listener``, and serve connections in its backlog by ``protocol``.

    The kernel completes connections by itself and keeps them until they are accepted. If they were still in
    the backlog when the socket is closed, the kernel would reset them, although their clients may already
    have sent a request.
    """
    waiting: list[socket.socket] = []
    try:
        while True:
            waiting.append(listener.accept()[0])
    except OSError:  # the backlog is empty, or no descriptor is left to accept with
        server.close()
    loop = asyncio.get_running_loop()
    for connection in waiting:
        connection.setblocking(False)
        await loop.connect_accepted_socket(protocol, connection)
