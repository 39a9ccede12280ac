"""Limits what a WebSocket buffers: little until its hello is accepted, then what the byte budget allows.

aiohttp's WebSocket reader has a single size limit for all messages, which must be large enough for frames.
The `HelloGate` in front of it is stricter before the hello: it ends the connection if more than
``most_bytes`` arrive without completing a message, and it stops reading while the handshake judges a hello.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from streamer.core.byte_budget import Holding

#: Room for frame headers, and for pings of a client that sends its hello late.
_SLACK_BYTES = 1 << 10
#: Bytes of each message that are not charged to the byte budget, so that usual frames need none of it.
FREE_BYTES = 256 << 10
#: Time for a complete message to reach the handshake before the gate decides that there was none.
_JUDGE_S = 0.05


def _nothing() -> None:
    """Do nothing; the default of the callbacks."""


class Reader(Protocol):
    """The part of aiohttp's WebSocket reader that the connection calls."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Parse bytes from the socket; returns whether the connection has ended, and the bytes left over."""

    def feed_eof(self) -> None:
        """Note that the socket has reached its end."""


class FlowControl(Protocol):
    """The part of a connection's protocol that stops and resumes reading from its socket."""

    def pause_reading(self) -> None:
        """Stop reading from the socket."""

    def resume_reading(self) -> None:
        """Resume reading from the socket."""


class HelloGate:
    """Limits the bytes that reach the WebSocket reader until the handshake says that it is done."""

    def __init__(self, hello_bytes: int, flow: FlowControl) -> None:
        #: Size of the largest hello, and the most bytes that may arrive before it is complete.
        self.hello_bytes = hello_bytes
        self.most_bytes = hello_bytes + _SLACK_BYTES
        #: Called once when more bytes arrived than a hello may have; set by the connection.
        self.on_excess: Callable[[], None] = _nothing
        #: Returns the client's holding in the byte budget; called when a large message needs it.
        self.hold: Callable[[], Holding] | None = None
        #: Called once when there was no room for a large message.
        self.on_full: Callable[[], None] = _nothing
        #: Called once when the gate opens, or the connection has ended.
        self.on_open: Callable[[], None] = _nothing
        self._flow = flow
        self._reader: Reader | None = None
        self._open = False
        self._cut = False
        #: Whether the handshake waits for a message.
        self._waiting = True
        #: Bytes passed to the reader since the handshake began to wait.
        self._fed_bytes = 0
        #: Bytes held back after those; at most what the socket delivers before it is paused.
        self._held = b""
        #: After the hello: bytes that arrived since the last message was read.
        self._unread_bytes = 0
        self._holding: Holding | None = None

    def put_before(self, reader: Reader) -> None:
        """Pass bytes to ``reader`` from now on."""
        self._reader = reader

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Pass on as many bytes as may be buffered."""
        reader = self._reader
        if reader is None or self._cut:
            return False, b""
        if self._open:
            self._unread_bytes += len(data)
            if self._unread_bytes > FREE_BYTES and not self._charge():
                return False, b""
            return reader.feed_data(data)
        room = 0 if self._held else self.most_bytes - self._fed_bytes
        self._held += data[room:]
        self._fed_bytes += min(room, len(data))
        if self._held:
            self._flow.pause_reading()
            asyncio.get_running_loop().call_later(_JUDGE_S, self._judge)
        return reader.feed_data(data[:room]) if room else (False, b"")

    def feed_eof(self) -> None:
        """Pass on the end of the socket."""
        if self._reader is not None:
            self._reader.feed_eof()

    def wait(self) -> None:
        """Note that the handshake waits for its next message: let the bytes of another hello through."""
        self._waiting = True
        self._fed_bytes = 0
        self._release()

    def taken(self) -> None:
        """Note that the handshake has received a message and judges it."""
        self._waiting = False

    def open(self) -> None:
        """Pass everything from now on, because the hello is accepted; further calls do nothing."""
        if not self._open:
            self._open = True
            self.on_open()
            self._release()

    def message_read(self) -> None:
        """Note that a message was read; the following bytes belong to the next one."""
        self._unread_bytes = 0
        if self._holding is not None:
            self._holding.release()

    def close(self) -> None:
        """Note that the connection has ended; drop the callbacks, which would keep it in memory."""
        self.open()
        self.message_read()
        self.on_excess = self.on_full = self.on_open = _nothing
        self.hold = self._reader = None

    def _charge(self) -> bool:
        """Charge the bytes beyond the free ones to the byte budget; returns False if there is no room."""
        if self.hold is None:
            return True
        if self._holding is None:
            self._holding = self.hold()
        if self._holding.take(self._unread_bytes - FREE_BYTES - self._holding.held_bytes):
            return True
        self._cut = True
        self.on_full()
        return False

    def _release(self) -> None:
        held, self._held = self._held, b""
        if held:
            self._flow.resume_reading()
            self.feed_data(held)

    def _judge(self) -> None:
        if self._waiting and self._held and not self._open and not self._cut:
            self._cut = True
            self._held = b""
            # Keep reading and drop what arrives: the client's answer to our close frame is behind it.
            self._flow.resume_reading()
            self.on_excess()
