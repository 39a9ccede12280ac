"""Disconnects clients that do not read what is sent to them, judged by the bytes that they acknowledge."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios

#: Interval of the checks, and the bytes that a client must take between two checks to stay connected.
CHECK_S = 10.0
MIN_TAKEN_BYTES = 4 << 10
#: The kernel drops a connection whose client takes nothing at all for this long, even after we closed it.
STALLED_S = 30.0


def limit_stall(transport: asyncio.BaseTransport) -> None:
    """Make the kernel end the connection if bytes stay unacknowledged or unsent for too long."""
    raw = transport.get_extra_info("socket")
    if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(STALLED_S * 1e3))


class WriteWatch:
    """Watches one connection while the buffer of its transport is full."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0

    def begin(self) -> None:
        """Start watching, because the transport's buffer is full."""
        self._unsent_bytes = _unsent_bytes(self._transport)
        self._schedule()

    def end(self) -> None:
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
