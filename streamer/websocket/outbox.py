"""Queues a bounded number of messages for one client; newer results replace those that a slow reader left."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from streamer.core.byte_budget import Holding
from streamer.protocol import server_messages
from streamer.protocol.server_messages import ServerMessage
from streamer.protocol.wire import DropReason

#: A client with this many unread messages counts as not reading. This many typical messages have 60 KiB.
MAX_MESSAGES = 256
#: Most bytes that may wait: the size of two dozen results with a thousand boxes each, in JSON.
MAX_BYTES = 2 << 20
#: Bytes that every client may leave unread. Only bytes beyond these are charged to the worker's byte budget,
#: so that clients that read are served even when others have filled the budget.
FREE_BYTES = 64 << 10

Encoded = str | bytes


class OutboxFull(Exception):
    """The client reads so slowly that no further message fits, even after older results were replaced."""


def _closed(*_arguments: object) -> NoReturn:
    raise OutboxFull("the connection has ended")


@dataclass(slots=True)
class _Waiting:
    """Holds one message; for a result, also its stream, seq, ack and win for a drop that may replace it."""

    encoded: Encoded
    size_bytes: int
    result: tuple[int, int, int, int] | None


class Outbox:
    """Keeps messages in order. While the client is slow, a live stream keeps only its newest result.

    ``encode`` returns a message as it is sent; ``hold`` returns the client's holding in the byte budget, and
    is called when it is first needed.
    """

    def __init__(self, encode: Callable[[ServerMessage], Encoded], hold: Callable[[], Holding]) -> None:
        self._encode = encode
        self._hold = hold
        self._holding: Holding | None = None
        #: The messages, oldest first. Other modules only test whether it is empty, which saves them a call.
        #: It is a deque once a message has waited; an empty deque would take 0.7 KB of an idle connection.
        self.messages: deque[_Waiting] | tuple[()] = ()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.messages)

    def put(self, message: ServerMessage, encoded: Encoded | None = None, *, replace_results: bool) -> int:
        """Append a message; returns how many results it replaced. The client gets a drop for each of those.

        ``encoded`` is the encoded message, if the caller has it already. Raises OutboxFull when a bound is
        reached, or what ``encode`` raises.
        """
        waiting = self._make(message, self._encode(message) if encoded is None else encoded)
        replaced = 0
        if replace_results and waiting.result is not None:
            replaced = self._replace(waiting.result[0])
        if len(self.messages) >= MAX_MESSAGES:
            raise OutboxFull(f"{len(self.messages)} messages wait for a client that does not read")
        if self._bytes + waiting.size_bytes > MAX_BYTES:
            raise OutboxFull(f"{self._bytes} bytes wait for a client that does not read")
        if not isinstance(self.messages, deque):
            self.messages = deque()
        self.messages.append(waiting)
        self._bytes += waiting.size_bytes
        if self._bytes > FREE_BYTES and not self._charge():
            self.messages.pop()
            self._bytes -= waiting.size_bytes
            raise OutboxFull(f"{self._bytes} bytes wait for this client, and the server has no room for more")
        return replaced

    def take(self) -> Encoded | None:
        """Remove and return the oldest message, or None."""
        if not isinstance(self.messages, deque) or not self.messages:
            return None
        waiting = self.messages.popleft()
        self._bytes -= waiting.size_bytes
        self._settle()
        return waiting.encoded

    def clear(self) -> None:
        """Drop everything and give all bytes back to the budget. May be called repeatedly."""
        self.messages = ()
        self._bytes = 0
        self._settle()

    def close(self) -> None:
        """Drop everything and the references to the owner; later messages are refused."""
        self.clear()
        self._encode, self._hold, self._holding = _closed, _closed, None

    def _make(self, message: ServerMessage, encoded: Encoded) -> _Waiting:
        result = None
        if message["type"] == "result":
            result = (message["stream"], message["seq"], message["ack"], message["win"])
        # The length of JSON is in characters. Only labels can make it differ from that in bytes, and results
        # have no labels.
        return _Waiting(encoded, len(encoded), result)

    def _replace(self, stream: int) -> int:
        """Replace the unsent results of a stream by drops."""
        replaced = 0
        for waiting in self.messages:
            if waiting.result is not None and waiting.result[0] == stream:
                _, seq, ack, win = waiting.result
                drop = server_messages.drop(stream, seq, seq, DropReason.SUPERSEDED.value, ack, win)
                encoded = self._encode(drop)
                self._bytes += len(encoded) - waiting.size_bytes
                waiting.encoded, waiting.size_bytes, waiting.result = encoded, len(encoded), None
                replaced += 1
        self._settle()
        return replaced

    def _charge(self) -> bool:
        """Charge the bytes beyond the free ones to the budget; False when it has no room for them."""
        if self._holding is None:
            self._holding = self._hold()
        return self._holding.take(self._bytes - FREE_BYTES - self._holding.held_bytes)

    def _settle(self) -> None:
        """Return the bytes of messages that have left the outbox to the budget."""
        holding = self._holding
        if holding is not None and holding.held_bytes:
            holding.give_back(holding.held_bytes - max(0, self._bytes - FREE_BYTES))
