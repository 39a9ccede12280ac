"""Accepts a worker's connections, within the limits of `places`, from its port and from the supervisor."""

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

from streamer.http.connection_places import ADDRESS_SHARE, ConnectionPlaces, Guest

log = logging.getLogger("streamer.acceptor")

#: Accepted in one turn of the loop, so that those who are in are heard before more come.
_A_TURN = 16
#: Before the next attempt when a connection had to be refused, or descriptors ran out.
PAUSE_S = 0.05
#: How long a connection may wait for a place; while one does, one more is accepted in each pause.
WAIT_S = 0.5
#: For what stands in the buffer of a connection that is cut, so that who never reads keeps no descriptor.
LAST_BYTES_S = 1.0
#: Descriptors that connections leave to everything else: WebRTC, decoders, files.
_OTHERS = 64
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Serves connections by the protocols that ``make`` returns; ``refused`` is told of each that is not."""

    def __init__(
        self,
        listener: socket.socket,
        make: Callable[[Guest | None], asyncio.Protocol],
        places: ConnectionPlaces,
        *,
        accepted: Callable[[], None] = lambda: None,
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        """``accepted`` is told of each connection that is taken from the port, served or not."""
        self._listener = listener
        self._make = make
        self._places = places
        self._accepted = accepted
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        #: None while nothing is handed over by a supervisor.
        self._channel: socket.socket | None = None
        self._tasks: set[asyncio.Task[object]] = set()
        #: Given up for a moment to refuse somebody when there is no other descriptor.
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._closed = False
        listener.setblocking(False)
        self._loop.add_reader(listener.fileno(), self._accept)

    def adopt_from(self, channel: socket.socket) -> None:
        """Serve what the supervisor accepted while this worker, or its predecessor, did not."""
        channel.setblocking(False)
        self._channel = channel
        self._loop.add_reader(channel.fileno(), self._adopt)

    def close(self) -> None:
        """Accept nobody any more."""
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
        for _ in range(_A_TURN):
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
            if not self._welcome(connection, str(address[0])):
                self._ask_again(connection, str(address[0]), self._loop.time() + WAIT_S)
                self._pause()
                return

    def _welcome(self, connection: socket.socket, address: str) -> bool:
        """Serve a connection; False when there is no place for it at this moment."""
        guest = self._places.enter(address, self._loop.time())
        if guest is None:
            return False
        connection.setblocking(False)
        task = self._loop.create_task(self._serve(connection, guest))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def _ask_again(self, connection: socket.socket, address: str, until: float) -> None:
        """Try to find a place for a connection in a moment: somebody may be idle for long enough by then."""
        self._loop.call_later(PAUSE_S, self._welcome_later, connection, address, until)

    def _welcome_later(self, connection: socket.socket, address: str, until: float) -> None:
        if not self._closed:
            if self._welcome(connection, address):
                return
            if self._loop.time() < until:
                self._ask_again(connection, address, until)
                return
        log.warning("refused a connection: %d are open, the limit", self._places.total)
        self._refused()
        connection.close()

    async def _serve(self, connection: socket.socket, guest: Guest) -> None:
        try:
            transport, _ = await self._loop.connect_accepted_socket(lambda: self._make(guest), connection)
        except OSError as error:  # it went away, or the last descriptors did
            log.debug("a connection could not be served: %s", error)
            self._places.leave(guest)
            connection.close()
        else:
            guest.cut = lambda: self._cut(transport)

    def _cut(self, transport: asyncio.Transport) -> None:
        """Close a connection; what was written to it still has a moment to leave."""
        transport.close()
        self._loop.call_later(LAST_BYTES_S, transport.abort)

    def _refuse_one(self, error: OSError) -> None:
        """Without a free descriptor the waiting connection would make the loop spin: accept and close it."""
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
                _, fds, _, _ = socket.recv_fds(channel, 16, 1)
            except OSError:
                return
            if not fds:
                self._loop.remove_reader(channel.fileno())
                return
            connection = socket.socket(fileno=fds[0])
            try:
                address = str(connection.getpeername()[0])
            except OSError:  # gone meanwhile
                connection.close()
                continue
            if not self._welcome(connection, address):
                self._ask_again(connection, address, self._loop.time() + WAIT_S)


def places_for(connections_max: int, connections_per_address: int) -> ConnectionPlaces:
    """Return the limits: those that are set, else what the process's descriptors allow."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = sum(1 for _ in Path("/proc/self/fd").iterdir())
    total = connections_max or max(16, min(int(soft * 0.8), soft - in_use - _OTHERS))
    return ConnectionPlaces(total, connections_per_address or max(8, int(total * ADDRESS_SHARE)))
