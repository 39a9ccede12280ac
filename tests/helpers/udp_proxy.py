"""A UDP relay between WebRTC client and service that loses, delays and reorders packets like a network."""

from __future__ import annotations

import asyncio
import random
import re
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

Address = tuple[str, int]
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 4 << 20


class _Side(asyncio.DatagramProtocol):
    """Holds one socket of the relay."""

    def __init__(self, received: Callable[[bytes, Address], None]) -> None:
        self._received = received
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        # A frame may arrive as 200 packets at once, and the socket must not lose any. Only root may exceed
        # the default limit of the buffer.
        opened = transport.get_extra_info("socket")
        try:
            opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        except PermissionError:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._received(data, (addr[0], addr[1]))


class UdpProxy:
    """Relays packets between a client that got its answer from :meth:`rewrite` and the service.

    ``loss`` is a share, 0 to 1. ``delay_s`` and ``jitter_s`` apply to each direction; the jitter is uniform
    in both signs. If ``drop`` is set, it replaces ``loss`` for media packets of the client; True means that
    the packet is lost.
    """

    def __init__(
        self, *, loss: float = 0.0, delay_s: float = 0.0, jitter_s: float = 0.0, seed: int = 1
    ) -> None:
        self.loss = loss
        self.delay_s = delay_s
        self.jitter_s = jitter_s
        self.drop: Callable[[bytes], bool] | None = None
        self.lost = 0
        #: Media packets received from the client: monotonic seconds, RTP timestamp, whether lost.
        self.media: list[tuple[float, int, bool]] = []
        self._random = random.Random(seed)
        self._near: _Side | None = None
        self._far: _Side | None = None
        self._client: Address | None = None
        self._server: Address = ("", 0)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        _, self._near = await loop.create_datagram_endpoint(
            lambda: _Side(self._from_client),
            local_addr=("0.0.0.0", 0),  # noqa: S104 - the client's own address
        )
        _, self._far = await loop.create_datagram_endpoint(
            lambda: _Side(self._from_server),
            local_addr=("0.0.0.0", 0),  # noqa: S104
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for side in (self._near, self._far):
            assert side is not None
            side.transport.close()

    def rewrite(self, answer: str) -> str:
        """Return the server's answer with the relay as its only candidate; remember the server's address."""
        assert self._near is not None
        port = self._near.transport.get_extra_info("sockname")[1]
        lines = []
        for line in answer.splitlines():
            match = re.fullmatch(r"(a=candidate:\S+ 1 udp \d+) (\d+\.\d+\.\d+\.\d+) (\d+) (typ host.*)", line)
            if match:
                self._server = (match.group(2), int(match.group(3)))
                line = f"{match.group(1)} {match.group(2)} {port} {match.group(4)}"
            elif line.startswith("a=candidate"):
                continue
            lines.append(line)
        assert self._server[1], "the answer has no IPv4 candidate"
        return "".join(f"{line}\r\n" for line in lines)

    def _from_client(self, data: bytes, address: Address) -> None:
        self._client = address
        media = 127 < data[0] < 192 and not 192 <= data[1] <= 223
        decide = self.drop if self.drop is not None and media else self._lose
        lose = decide(data)
        if media:
            self.media.append((time.monotonic(), int.from_bytes(data[4:8], "big"), lose))
        self._pass(self._far, data, self._server, lose=lose)

    def _lose(self, _: bytes) -> bool:
        return self._random.random() < self.loss

    def _from_server(self, data: bytes, _: Address) -> None:
        if self._client is not None:
            self._pass(self._near, data, self._client, lose=self._random.random() < self.loss)

    def _pass(self, side: _Side | None, data: bytes, to: Address, *, lose: bool) -> None:
        assert side is not None
        if lose:
            self.lost += 1
            return
        delay_s = self.delay_s + self._random.uniform(-self.jitter_s, self.jitter_s)
        if delay_s <= 0:
            side.transport.sendto(data, to)
        else:
            asyncio.get_running_loop().call_later(delay_s, self._send_late, side, data, to)

    def _send_late(self, side: _Side, data: bytes, to: Address) -> None:
        if not side.transport.is_closing():
            side.transport.sendto(data, to)

    @property
    def server(self) -> Address:
        """The media address of the service itself."""
        return self._server
