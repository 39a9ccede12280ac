"""Stands in for workers that do not accept: answers probes, hands other connections to one that does.

The kernel deals connections out to the workers' sockets, and those of a worker that is stopped, hangs or has
died would wait until its successor serves. The supervisor holds the same sockets. It looks only 100 ms after
somebody has connected, so it costs nothing while nobody does, and next to nothing while workers accept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import select
import socket
import time
from collections.abc import Sequence

from inference.ipc.shared_status import Board, Presence

log = logging.getLogger("streamer.supervisor")

#: A connection that waits so long, while its worker accepts nobody, is taken.
PATIENCE_S = 0.1
#: How long a connection's first bytes are waited for before it is handed over unread.
HEAD_S = 0.25
#: A worker with an older beat is not trusted with connections of others.
FRESH_BEAT_S = 2.5
#: Connections held at once while their first bytes are waited for.
MAX_HELD = 64
_PROBES = ("/livez", "/health")
_HEAD_BYTES = 1024


class StandIn:
    """Takes over for workers. Construct it in the running loop; ``channels`` lead to the workers."""

    def __init__(
        self, board: Board, listeners: Sequence[socket.socket], channels: Sequence[socket.socket]
    ) -> None:
        self._board = board
        self._listeners = listeners
        self._channels = channels
        self._loop = asyncio.get_running_loop()
        #: Workers that left somebody waiting, with what they had accepted until then.
        self._stalled: dict[int, float] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._held: set[asyncio.Task[None]] = set()
        self._closed = False
        for listener in listeners:
            listener.setblocking(False)  # as the workers have it: the flag belongs to the shared socket
        for number in range(len(listeners)):
            self._arm(number)

    def close(self) -> None:
        """Take no more connections; call it before the listeners are closed."""
        self._closed = True
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
        for timer in self._timers.values():
            timer.cancel()
        for task in self._held:
            task.cancel()

    def _arm(self, number: int) -> None:
        if not self._closed:
            self._loop.add_reader(self._listeners[number].fileno(), self._on_waiting, number)

    def _on_waiting(self, number: int) -> None:
        """Somebody has connected: give the worker time to accept."""
        self._loop.remove_reader(self._listeners[number].fileno())
        accepted = self._board.read_worker(number, "accepted")
        if self._stalled.get(number) == accepted:
            self._take(number)
            self._later(number, accepted, 0.02)
        else:
            self._stalled.pop(number, None)
            self._later(number, accepted, PATIENCE_S)

    def _later(self, number: int, accepted: float, delay_s: float) -> None:
        self._timers[number] = self._loop.call_later(delay_s, self._look, number, accepted)

    def _look(self, number: int, before: float) -> None:
        waits = select.poll()
        waits.register(self._listeners[number], select.POLLIN)
        if waits.poll(0) and self._board.read_worker(number, "accepted") == before:
            if number not in self._stalled:
                log.debug("worker %d accepts no connections", number)
            self._stalled[number] = before
            self._take(number)
        self._arm(number)

    def _take(self, number: int) -> None:
        while len(self._held) < MAX_HELD:
            try:
                connection, _ = self._listeners[number].accept()
            except OSError:  # nobody waits any more, or there is no descriptor: they go on waiting
                return
            task = self._loop.create_task(self._serve(connection, number))
            self._held.add(task)
            task.add_done_callback(self._held.discard)

    async def _serve(self, connection: socket.socket, number: int) -> None:
        """Answer or hand over one connection that was meant for worker ``number``."""
        with connection:
            connection.setblocking(False)
            target = self._other_than(number)
            if target is None:
                path = await self._probed_path(connection)
                if path == "/livez" or (path == "/health" and not await self._accepts_again(number)):
                    await self._answer(connection, path)
                    return
                target = number
            with contextlib.suppress(OSError):  # its channel is full: as refused as by a full backlog
                socket.send_fds(self._channels[target], [b"c"], [connection.fileno()])

    def _is_fresh(self, number: int) -> bool:
        beat = self._board.read_worker(number, "beat")
        serves = self._board.read_worker(number, "presence") == Presence.SERVING
        return serves and time.monotonic() - beat < FRESH_BEAT_S

    async def _accepts_again(self, number: int) -> bool:
        """Wait until the worker accepts somebody, or its last beat is too old to hope for that."""
        before = self._board.read_worker(number, "accepted"), self._board.read_worker(number, "beat")
        while self._is_fresh(number):
            now = self._board.read_worker(number, "accepted"), self._board.read_worker(number, "beat")
            if now != before:
                return True
            await asyncio.sleep(PATIENCE_S)
        return False

    def _other_than(self, number: int) -> int | None:
        """Return the worker that accepted the least of those that serve; None when there is none."""
        others = [
            other
            for other in range(len(self._listeners))
            if other != number and other not in self._stalled and self._is_fresh(other)
        ]
        return min(others, key=lambda other: self._board.read_worker(other, "accepted"), default=None)

    async def _probed_path(self, connection: socket.socket) -> str:
        """Return the path of a probe whose request has begun to arrive, without reading it; else nothing."""
        readable = asyncio.Event()
        self._loop.add_reader(connection.fileno(), readable.set)
        try:
            async with asyncio.timeout(HEAD_S):
                await readable.wait()
            head = connection.recv(_HEAD_BYTES, socket.MSG_PEEK)
        except (TimeoutError, OSError):
            return ""
        finally:
            self._loop.remove_reader(connection.fileno())
        method, _, rest = head.partition(b" ")
        path = rest.split(b" ", 1)[0].split(b"?", 1)[0].decode("latin-1")
        return path if method in (b"GET", b"HEAD") and path in _PROBES else ""

    async def _answer(self, connection: socket.socket, path: str) -> None:
        body: dict[str, object]
        if path == "/livez":
            # The supervisor lives and brings the workers back: a restart of the whole replica is slower.
            status, body = "200 OK", {"alive": True, "state": "restarting"}
        else:
            status = "503 Service Unavailable"
            body = {"status": "restarting", "reasons": [self._reason()]}
        if self._board.read("draining"):
            body["state" if path == "/livez" else "status"] = "draining"
        text = json.dumps(body).encode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: application/json; charset=utf-8\r\n"
            f"Content-Length: {len(text)}\r\nCache-Control: no-store\r\nRetry-After: 2\r\n"
            "Connection: close\r\n\r\n"
        )
        with contextlib.suppress(OSError):
            connection.recv(1 << 16)  # what is unread at the close would reset the connection
            connection.send(head.encode() + text)
            connection.shutdown(socket.SHUT_WR)

    def _reason(self) -> str:
        starting = all(
            self._board.read_worker(number, "presence") == Presence.STARTING
            for number in range(len(self._listeners))
        )
        return "the workers are starting" if starting else "no worker answers; they are being restarted"
