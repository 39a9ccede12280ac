"""Bounds what a WebSocket buffers: little until its hello is accepted, then what the byte budget allows.

The WebSocket reader has one limit for all messages, which must be that of frames. The gate stands in front of
it: bytes that do not complete a message within ``most_bytes`` end the connection, and bytes that arrive while
a hello is being judged wait in the socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from streamer.core.byte_budget import Holding

#: Frame headers, and pings of a client that is slow to greet.
_SLACK_BYTES = 1 << 10
#: Of a message that arrives; only what lies beyond is taken from the byte budget: usual frames need none.
FREE_BYTES = 256 << 10
#: Time for a complete message to reach the greeting before the gate decides that there was none.
_JUDGE_S = 0.05


def _nothing() -> None:
    """What is called where nobody wants to be told."""


class Reader(Protocol):
    """The part of aiohttp's WebSocket reader that the connection calls."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take bytes off the socket; returns whether the connection is at its end, and what is left."""

    def feed_eof(self) -> None:
        """The socket has ended."""


class FlowControl(Protocol):
    """The part of a connection's protocol that stops and continues its socket."""

    def pause_reading(self) -> None:
        """Stop reading."""

    def resume_reading(self) -> None:
        """Continue."""


class HelloGate:
    """A reader in front of the reader; the greeting says when it waits and when it is done."""

    def __init__(self, hello_bytes: int, flow: FlowControl) -> None:
        #: The largest hello, and what may come before it is complete.
        self.hello_bytes = hello_bytes
        self.most_bytes = hello_bytes + _SLACK_BYTES
        #: Called once when more arrived than a hello may have; set by the connection.
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
        #: Whether the greeting waits for a message.
        self._waiting = True
        #: Bytes given to the reader since the greeting began to wait.
        self._fed_bytes = 0
        #: What came beyond them; not more than the socket delivers before it is paused.
        self._held = b""
        #: Since the hello: bytes that have come after the last message that was read.
        self._unread_bytes = 0
        self._holding: Holding | None = None

    def put_before(self, reader: Reader) -> None:
        """Stand in front of that reader from now on."""
        self._reader = reader

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Pass bytes on as far as they may be buffered."""
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
        """Pass the end on."""
        if self._reader is not None:
            self._reader.feed_eof()

    def wait(self) -> None:
        """The greeting waits for its next message: another hello may come."""
        self._waiting = True
        self._fed_bytes = 0
        self._release()

    def taken(self) -> None:
        """The greeting has a message and judges it."""
        self._waiting = False

    def open(self) -> None:
        """The hello is accepted: everything passes. Again is fine."""
        if not self._open:
            self._open = True
            self.on_open()
            self._release()

    def message_read(self) -> None:
        """A message was read: what comes belongs to the next one."""
        self._unread_bytes = 0
        if self._holding is not None:
            self._holding.release()

    def close(self) -> None:
        """The connection has ended. What it was told to call keeps the connection in memory."""
        self.open()
        self.message_read()
        self.on_excess = self.on_full = self.on_open = _nothing
        self.hold = self._reader = None

    def _charge(self) -> bool:
        """Hold what lies beyond the free bytes; False when there is no room for it."""
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
            # What follows is dropped, so that the answer to our close frame is not waited for in vain.
            self._flow.resume_reading()
            self.on_excess()
