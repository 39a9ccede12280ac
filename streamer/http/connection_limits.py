"""Limits how many connections a worker keeps, and how much a WebSocket buffers before its hello.

A connection is idle before its first request and between two requests. A new connection replaces the one
that has been idle for longest, so silent clients can neither use up the descriptors nor keep a probe out.

aiohttp's WebSocket reader has a single size limit for all messages, which must be large enough for frames.
The `ReadLimiter` in front of it is stricter before the hello: it ends the connection if more than
``max_bytes`` arrive without completing a message, and it stops reading while the handshake judges a hello.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from streamer.core.byte_budget import Holding

#: Connections that are accepted beyond the limit; they are answered only if they are probes.
PROBE_RESERVE = 16
#: A new connection is not closed before it has had this many seconds to send the first bytes of its request.
FIRST_REQUEST_S = 0.05
#: A connection is not closed within this many seconds after a request: its answer may still be being sent.
AFTER_ANSWER_S = 0.2
#: Share of all connections that one address may hold. A proxy in front of the service is one address.
ADDRESS_SHARE = 0.75
_EVICTION_SCAN = 8


@dataclass(slots=True, eq=False)
class TrackedConnection:
    """Holds the state of one connection. Times are in seconds of the caller's clock."""

    network: str
    #: Time at which it became idle.
    idle_since: float
    #: Whether it has made a request.
    has_requested: bool = False
    #: Closes the connection; None until it has a transport.
    close: Callable[[], None] | None = None


class ConnectionLimiter:
    """Tracks the connections of one worker: at most ``total``, and at most ``per_network`` of one network."""

    def __init__(self, total: int, per_network: int) -> None:
        self.total = total
        self.per_network = per_network
        self._by_network: dict[str, set[TrackedConnection]] = {}
        self._count = 0
        #: The idle connections, starting with the one that has been idle for longest.
        self._idle: OrderedDict[TrackedConnection, None] = OrderedDict()

    @property
    def full(self) -> bool:
        """Whether an idle connection must be closed before another one is admitted."""
        return self._count >= self.total

    @property
    def over(self) -> bool:
        """Whether there are more connections than allowed, so that only probes are answered."""
        return self._count > self.total

    def admit(self, address: str, now: float) -> TrackedConnection | None:
        """Admit a new connection and close an idle one if there are too many; return None to refuse it."""
        network = network_of(address)
        same = self._by_network.get(network, ())
        if len(same) >= self.per_network and not self._evict_idle(now, network):
            return None
        if self.full and not self._evict_idle(now) and self._count >= self.total + PROBE_RESERVE:
            return None
        tracked = TrackedConnection(network, now)
        self._by_network.setdefault(network, set()).add(tracked)
        self._count += 1
        self._idle[tracked] = None
        return tracked

    def remove(self, tracked: TrackedConnection) -> None:
        """Remove a connection that has ended; further calls for it do nothing."""
        same = self._by_network.get(tracked.network)
        if same is None or tracked not in same:
            return
        same.remove(tracked)
        if not same:
            del self._by_network[tracked.network]
        self._count -= 1
        self._idle.pop(tracked, None)

    def request_started(self, tracked: TrackedConnection) -> None:
        """Note that a request of this connection is being answered."""
        self._idle.pop(tracked, None)
        tracked.has_requested = True

    def request_ended(self, tracked: TrackedConnection, now: float) -> None:
        """Note that the request is answered and the connection is idle again."""
        if tracked in self._by_network.get(tracked.network, ()):
            tracked.idle_since = now
            self._idle[tracked] = None

    def _evict_idle(self, now: float, network: str | None = None) -> bool:
        """Close the connection that has been idle for longest; return False if none was idle long enough."""
        examined = 0
        for tracked in self._idle:
            if network is not None and tracked.network != network:
                continue
            idle_s = now - tracked.idle_since
            if tracked.close is not None and idle_s >= (
                AFTER_ANSWER_S if tracked.has_requested else FIRST_REQUEST_S
            ):
                close = tracked.close
                self.remove(tracked)
                close()
                return True
            examined += 1
            if examined == _EVICTION_SCAN:
                break
        return False


def network_of(address: str) -> str:
    """Return the network that counts as one client: an IPv4 address, or the /64 of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    mapped = parsed.ipv4_mapped
    return str(mapped) if mapped is not None else str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))


#: Room for frame headers, and for pings of a client that sends its hello late.
_SLACK_BYTES = 1 << 10
#: Bytes of each message that are not charged to the byte budget, so that usual frames need none of it.
FREE_BYTES = 256 << 10
#: Seconds that a complete message may take to reach the handshake. After them, the limiter decides that the
#: bytes that arrived contain no complete message.
_EXCESS_DELAY_S = 0.05


def _nothing() -> None:
    """Do nothing; the default of the callbacks."""


class Reader(Protocol):
    """Declares the part of aiohttp's WebSocket reader that the connection calls."""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Parse bytes from the socket; return whether the connection has ended, and the bytes left over."""

    def feed_eof(self) -> None:
        """Note that the socket has reached its end."""


class FlowControl(Protocol):
    """Declares the part of a connection's protocol that stops and resumes reading from its socket."""

    def pause_reading(self) -> None:
        """Stop reading from the socket."""

    def resume_reading(self) -> None:
        """Resume reading from the socket."""


class ReadLimiter:
    """Limits the bytes that reach the WebSocket reader until the hello is accepted.

    After that, it charges the bytes of large messages to the byte budget.
    """

    def __init__(self, hello_bytes: int, flow: FlowControl) -> None:
        #: Size of the largest hello, and the most bytes that may arrive before it is complete.
        self.hello_bytes = hello_bytes
        self.max_bytes = hello_bytes + _SLACK_BYTES
        #: Called once when more bytes arrived than a hello may have; set by the connection.
        self.on_excess: Callable[[], None] = _nothing
        #: Returns the client's holding in the byte budget; called when a large message needs it.
        self.hold: Callable[[], Holding] | None = None
        #: Called once when there was no room for a large message.
        self.on_full: Callable[[], None] = _nothing
        #: Called once when the hello is accepted, or the connection has ended.
        self.on_handshake_end: Callable[[], None] = _nothing
        self._flow = flow
        self._reader: Reader | None = None
        self._accepted = False
        self._discarding = False
        #: Whether the handshake waits for a message.
        self._waiting = True
        #: Bytes passed to the reader since the handshake began to wait.
        self._fed_bytes = 0
        #: Bytes that arrived after those and wait here; at most what the socket delivers before it is paused.
        self._held = b""
        #: After the hello: bytes that arrived since the last message was read.
        self._unread_bytes = 0
        self._holding: Holding | None = None

    def attach(self, reader: Reader) -> None:
        """Pass bytes to ``reader`` from now on."""
        self._reader = reader

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Pass on as many bytes as may be buffered."""
        reader = self._reader
        if reader is None or self._discarding:
            return False, b""
        if self._accepted:
            self._unread_bytes += len(data)
            if self._unread_bytes > FREE_BYTES and not self._charge():
                return False, b""
            return reader.feed_data(data)
        room = 0 if self._held else self.max_bytes - self._fed_bytes
        self._held += data[room:]
        self._fed_bytes += min(room, len(data))
        if self._held:
            self._flow.pause_reading()
            asyncio.get_running_loop().call_later(_EXCESS_DELAY_S, self._check_excess)
        return reader.feed_data(data[:room]) if room else (False, b"")

    def feed_eof(self) -> None:
        """Pass on the end of the socket."""
        if self._reader is not None:
            self._reader.feed_eof()

    def expect_hello(self) -> None:
        """Note that the handshake waits for its next message, and let the bytes of another hello through."""
        self._waiting = True
        self._fed_bytes = 0
        self._release()

    def hello_received(self) -> None:
        """Note that the handshake has received a message and judges it."""
        self._waiting = False

    def hello_accepted(self) -> None:
        """Lift the limit of the handshake, because the hello is accepted; further calls do nothing."""
        if not self._accepted:
            self._accepted = True
            self.on_handshake_end()
            self._release()

    def message_read(self) -> None:
        """Note that a message was read; the following bytes belong to the next one."""
        self._unread_bytes = 0
        if self._holding is not None:
            self._holding.release()

    def close(self) -> None:
        """Note that the connection has ended, and drop the callbacks, which would keep it in memory."""
        self.hello_accepted()
        self.message_read()
        self.on_excess = self.on_full = self.on_handshake_end = _nothing
        self.hold = self._reader = None

    def _charge(self) -> bool:
        """Charge the bytes beyond the free ones to the byte budget; return False if it has no room."""
        if self.hold is None:
            return True
        if self._holding is None:
            self._holding = self.hold()
        if self._holding.take(self._unread_bytes - FREE_BYTES - self._holding.held_bytes):
            return True
        self._discarding = True
        self.on_full()
        return False

    def _release(self) -> None:
        held, self._held = self._held, b""
        if held:
            self._flow.resume_reading()
            self.feed_data(held)

    def _check_excess(self) -> None:
        if self._waiting and self._held and not self._accepted and not self._discarding:
            self._discarding = True
            self._held = b""
            # Keep reading and drop what arrives, because the client's answer to our close frame follows it.
            self._flow.resume_reading()
            self.on_excess()
