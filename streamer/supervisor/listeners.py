"""Opens the listening sockets, which outlive the workers, and accepts on them for workers that do not.

The kernel distributes connections over the sockets of all workers. Connections to a worker that is stopped,
hangs or has died would wait until its successor serves. The supervisor holds the same sockets. It passes such
connections to a worker that accepts, and answers probes itself if there is none. It looks for waiting
connections only 100 ms after one has arrived, so this costs nothing while no connections arrive, and next to
nothing while workers accept.
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
from typing import Literal

from inference.ipc.shared_status import Presence, SharedStatus
from streamer.http.probe_answers import LivenessDocument, WorkersAway
from streamer.supervisor.restart_policy import CannotStart

log = logging.getLogger("streamer.supervisor")

#: Connections that the kernel completes before a worker accepts them. The system's limit, `somaxconn`, often
#: has the same value. Beyond it the kernel ignores the packets of clients, which try again after a second:
#: with 128, some of 180 clients that connected at once took 1.02 s, and so did a probe among them.
BACKLOG = 4096
#: The supervisor accepts a waiting connection if the worker has accepted none for this time.
PATIENCE_S = 0.1
#: Time to wait for the first bytes of a connection. If none arrive, a worker gets the connection.
HEAD_S = 0.25
#: A worker whose last heartbeat is older than this gets no connections of other workers.
FRESH_BEAT_S = 2.5
#: Maximum number of connections that the supervisor has accepted and not yet answered or handed over.
MAX_HELD = 64
_PROBES = ("/livez", "/health")
_HEAD_BYTES = 1024


def listen(host: str, port: int, workers: int) -> list[socket.socket]:
    """Return one listening socket per worker, all on the same port.

    The supervisor owns them, so connections that arrive while a worker restarts wait in the backlog instead
    of being refused. On `::` the sockets accept IPv4 connections, too, whatever the system's default is.
    Raises CannotStart if the address cannot be used.
    """
    try:
        family, kind, protocol, _, resolved = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        if port:
            # Bind once without SO_REUSEPORT: with it, the port could be shared with another service, where
            # binding should fail.
            with socket.socket(family, kind, protocol) as probe:
                _prepare(probe)
                probe.bind(resolved)
        sockets: list[socket.socket] = []
        for _ in range(workers):
            listener = socket.socket(family, kind, protocol)
            _prepare(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(sockets[0].getsockname() if sockets else resolved)
            listener.listen(BACKLOG)
            listener.set_inheritable(True)
            sockets.append(listener)
    except OSError as error:
        raise CannotStart(
            f"cannot listen on {in_url(host)}:{port}: {error.strerror or error}; choose another HOST or PORT"
        ) from error
    return sockets


def browser_url(host: str, port: int, root_path: str = "") -> str:
    """Return the URL to open in a browser on this machine for a service that listens on ``host``.

    A browser cannot open an address that stands for all interfaces, so the loopback address replaces it.
    """
    reachable = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared
    return f"http://{in_url(reachable)}:{port}{root_path}/"


def in_url(host: str) -> str:
    """Return a host in the form that it has in a URL, with an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def _prepare(listener: socket.socket) -> None:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)


class FallbackAcceptor:
    """Accepts connections for workers that do not accept them, and passes them to other workers.

    Construct it in the running event loop. ``channels`` are the sockets over which connections are passed to
    the workers. Probes below ``root_path`` (`ROOT_PATH`) are answered, too.
    """

    def __init__(
        self,
        shared_status: SharedStatus,
        listeners: Sequence[socket.socket],
        channels: Sequence[socket.socket],
        root_path: str = "",
    ) -> None:
        self._root_path = root_path
        self._shared_status = shared_status
        self._listeners = listeners
        self._channels = channels
        self._loop = asyncio.get_running_loop()
        #: Workers that left a connection waiting, and how many connections each had accepted by then.
        self._stalled: dict[int, float] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._held: set[asyncio.Task[None]] = set()
        self._closed = False
        for listener in listeners:
            # Workers expect non-blocking sockets. All processes share the socket, and with it this flag.
            listener.setblocking(False)
        for number in range(len(listeners)):
            self._arm(number)

    def close(self) -> None:
        """Stop taking connections; call this before the listeners are closed."""
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
        """Give the worker time to accept the connection that has arrived."""
        self._loop.remove_reader(self._listeners[number].fileno())
        accepted = self._shared_status.read_worker(number, "accepted")
        if self._stalled.get(number) == accepted:
            self._take(number)
            self._check_later(number, accepted, 0.02)
        else:
            self._stalled.pop(number, None)
            self._check_later(number, accepted, PATIENCE_S)

    def _check_later(self, number: int, accepted: float, delay_s: float) -> None:
        self._timers[number] = self._loop.call_later(delay_s, self._check, number, accepted)

    def _check(self, number: int, before: float) -> None:
        waits = select.poll()
        waits.register(self._listeners[number], select.POLLIN)
        if waits.poll(0) and self._shared_status.read_worker(number, "accepted") == before:
            if number not in self._stalled:
                log.debug("worker %d accepts no connections", number)
            self._stalled[number] = before
            self._take(number)
        self._arm(number)

    def _take(self, number: int) -> None:
        while len(self._held) < MAX_HELD:
            try:
                connection, _ = self._listeners[number].accept()
            except OSError:
                # No connection waits, or no descriptor is free. Then connections stay in the backlog.
                return
            task = self._loop.create_task(self._serve(connection, number))
            self._held.add(task)
            task.add_done_callback(self._held.discard)

    async def _serve(self, connection: socket.socket, number: int) -> None:
        """Hand over one connection to a worker, or answer it if it is a probe and no worker accepts."""
        with connection:
            connection.setblocking(False)
            target = self._choose_other(number)
            if target is None:
                path = await self._probed_path(connection)
                if path == "/livez" or (path == "/health" and not await self._accepts_again(number)):
                    await self._answer(connection, path)
                    return
                target = number
            # If the channel is full, the connection is refused, as it would be if the backlog were full.
            with contextlib.suppress(OSError):
                socket.send_fds(self._channels[target], [b"c"], [connection.fileno()])

    def _is_fresh(self, number: int) -> bool:
        beat = self._shared_status.read_worker(number, "beat")
        serves = self._shared_status.read_worker(number, "presence") == Presence.SERVING
        return serves and time.monotonic() - beat < FRESH_BEAT_S

    async def _accepts_again(self, number: int) -> bool:
        """Return True when the worker accepts or beats again, and False if its last heartbeat is too old."""
        before = (
            self._shared_status.read_worker(number, "accepted"),
            self._shared_status.read_worker(number, "beat"),
        )
        while self._is_fresh(number):
            now = (
                self._shared_status.read_worker(number, "accepted"),
                self._shared_status.read_worker(number, "beat"),
            )
            if now != before:
                return True
            await asyncio.sleep(PATIENCE_S)
        return False

    def _choose_other(self, number: int) -> int | None:
        """Return the other serving worker that has accepted the fewest connections; None if there is none."""
        others = [
            other
            for other in range(len(self._listeners))
            if other != number and other not in self._stalled and self._is_fresh(other)
        ]
        return min(others, key=lambda other: self._shared_status.read_worker(other, "accepted"), default=None)

    async def _probed_path(self, connection: socket.socket) -> str:
        """Return the path if the connection starts with a probe, else ""; the bytes stay in the socket."""
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
        path = rest.split(b" ", 1)[0].split(b"?", 1)[0].decode("latin-1").removeprefix(self._root_path)
        return path if method in (b"GET", b"HEAD") and path in _PROBES else ""

    async def _answer(self, connection: socket.socket, path: str) -> None:
        body: LivenessDocument | WorkersAway
        state: Literal["draining", "restarting"] = (
            "draining" if self._shared_status.read("draining") else "restarting"
        )
        if path == "/livez":
            # Say that the replica is alive, because the supervisor restarts the workers. Restarting the whole
            # replica would take longer.
            status, body = "200 OK", {"alive": True, "state": state}
        else:
            status, body = "503 Service Unavailable", {"status": state, "reasons": [self._reason()]}
        text = json.dumps(body).encode()
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: application/json; charset=utf-8\r\n"
            f"Content-Length: {len(text)}\r\nCache-Control: no-store\r\nRetry-After: 2\r\n"
            "Connection: close\r\n\r\n"
        )
        with contextlib.suppress(OSError):
            connection.recv(1 << 16)  # unread bytes would reset the connection when it is closed
            connection.send(head.encode() + text)
            connection.shutdown(socket.SHUT_WR)

    def _reason(self) -> str:
        starting = all(
            self._shared_status.read_worker(number, "presence") == Presence.STARTING
            for number in range(len(self._listeners))
        )
        return "the workers are starting" if starting else "no worker answers; they are being restarted"
