"""Cuts off a client that does not take what is sent to it, judged by the bytes that leave."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios

#: What waits is looked at this often; a client takes at least so many bytes in between, or is cut off.
CHECK_S = 10.0
MIN_TAKEN_BYTES = 4 << 10
#: The kernel gives up a connection whose client takes nothing at all for so long, after our close too.
STALLED_S = 30.0


def limit_stall(transport: asyncio.BaseTransport) -> None:
    """Have the kernel end the connection when sent bytes stay unacknowledged, or unsent, for too long."""
    raw = transport.get_extra_info("socket")
    if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLED_S * 1e3))


class WriteWatch:
    """Watches one connection from the moment that its transport is full until it has room again."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0

    def begin(self) -> None:
        """The transport is full."""
        self._unsent_bytes = _unsent_bytes(self._transport)
        self._schedule()

    def end(self) -> None:
        """The transport has room, or is gone."""
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
    """Return what the client has not acknowledged: in the transport and in the kernel."""
    kernel_bytes = 0
    raw = transport.get_extra_info("socket")
    if raw is not None and raw.fileno() >= 0:
        with contextlib.suppress(OSError):
            answer = fcntl.ioctl(raw.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
            (kernel_bytes,) = struct.unpack("i", answer)
    return transport.get_write_buffer_size() + kernel_bytes
