"""Sends POSTs over keep-alive connections with a client that costs almost no processor time.

A saturated service shares its cores with the client that saturates it. The client of aiohttp takes 0.35 ms
per request there, which would be attributed to the service. This one sends requests that were built in
advance, and reads only the status and the length of an answer.
"""

from __future__ import annotations

import itertools
import re
import selectors
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.helpers.load import Tally

_HEAD = re.compile(rb"HTTP/1\.1 (\d{3})[^\r]*\r\n.*?content-length: (\d+)\r\n", re.IGNORECASE | re.DOTALL)
_ANSWER_BYTES = 64 << 10
_SEND_BUFFER_BYTES = 1 << 20


class _Connection:
    """One connection that sends the next request as soon as it has the answer."""

    def __init__(self, address: tuple[str, int], tally: Tally) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A whole request fits into the buffer, so that sending never waits for the server to read.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._tally = tally
        self._answer = b""
        self._sent_at = 0.0
        self.waiting = False

    def ask(self, request: bytes) -> None:
        """Send a request."""
        self._sent_at = time.monotonic()
        self._tally.sent += 1
        self.waiting = True
        self.socket.sendall(request)

    def read(self) -> bool:
        """Receive data; return whether the answer is complete. Raises ConnectionError."""
        data = self.socket.recv(_ANSWER_BYTES)
        if not data:
            raise ConnectionError("the service closed a connection that waited for an answer")
        self._answer += data
        end = self._answer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = _HEAD.match(self._answer)
        if head is None:
            raise ConnectionError(f"not an answer with a length: {self._answer[:200]!r}")
        if len(self._answer) < end + 4 + int(head[2]):
            return False
        now = time.monotonic()
        if head[1] == b"200":
            self._tally.results += 1
            self._tally.latencies_s.append(now - self._sent_at)
            self._tally.arrivals.append(now)
        else:
            self._tally.errors[head[1].decode()] += 1
        self._answer = b""
        self.waiting = False
        return True


def post(url: str, images: list[bytes], seconds: float, connections: int) -> Tally:
    """POST for ``seconds`` over ``connections``, one request at a time on each; return the tally."""
    parts = urlsplit(url)
    address = (parts.hostname or "127.0.0.1", parts.port or 80)
    requests = itertools.cycle(_requests(parts.path, parts.netloc, images))
    tally = Tally()
    opened = [_Connection(address, tally) for _ in range(connections)]
    until = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for connection in opened:
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            connection.ask(next(requests))
        while any(connection.waiting for connection in opened):
            events = selector.select(timeout=30)
            if not events:
                raise TimeoutError("the service left a request without an answer for 30 s")
            for key, _ in events:
                if key.data.read() and time.monotonic() < until:
                    key.data.ask(next(requests))
    for connection in opened:
        connection.socket.close()
    return tally


def _requests(path: str, host: str, images: list[bytes]) -> Iterator[bytes]:
    for image in images:
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/jpeg\r\n"
        yield f"{head}Content-Length: {len(image)}\r\n\r\n".encode() + image
