"""The outbox: encoded messages on their way to one client, and what gives way when it reads too slowly."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from streamer.core.byte_budget import Holding

#: Beyond this the client is not reading at all: about 60 KiB of typical messages.
MAX_MESSAGES = 256
#: Two dozen results with a thousand boxes each, in JSON.
MAX_BYTES = 2 << 20
#: What every client may leave unread; only what lies beyond is taken from the worker's byte budget, so that a
#: client that reads is served even when others have filled it.
FREE_BYTES = 64 << 10

Encoded = str | bytes


class OutboxFull(Exception):
    """The client reads so slowly that even without stale results nothing more fits."""


def _closed(*_arguments: object) -> NoReturn:
    raise OutboxFull("the connection has ended")


@dataclass(slots=True)
class _Waiting:
    """One message. ``result`` holds what the drop of an unsent result says; None for other messages."""

    encoded: Encoded
    size_bytes: int
    result: dict[str, Any] | None


class Outbox:
    """Messages in order. While the client is slow, a live stream keeps only its newest result.

    ``encode`` makes what is sent of a message; ``hold`` returns the client's holding in the byte budget, and
    is called when it is needed first.
    """

    def __init__(self, encode: Callable[[dict[str, Any]], Encoded], hold: Callable[[], Holding]) -> None:
        self._encode = encode
        self._hold = hold
        self._holding: Holding | None = None
        self._messages: deque[_Waiting] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: dict[str, Any], encoded: Encoded | None = None, *, replace_results: bool) -> int:
        """Append a message; returns how many results it replaced (they become drops, so none goes missing).

        ``encoded`` is what ``encode`` has made of it, if it was asked already.
        Raises OutboxFull when a bound is reached, or what ``encode`` raises.
        """
        waiting = self._make(message, self._encode(message) if encoded is None else encoded)
        replaced = 0
        if replace_results and waiting.result is not None:
            replaced = self._replace(message["stream"])
        if len(self._messages) >= MAX_MESSAGES:
            raise OutboxFull(f"{len(self._messages)} messages wait for a client that does not read")
        if self._bytes + waiting.size_bytes > MAX_BYTES:
            raise OutboxFull(f"{self._bytes} bytes wait for a client that does not read")
        self._messages.append(waiting)
        self._bytes += waiting.size_bytes
        if self._bytes > FREE_BYTES and not self._charge():
            self._messages.pop()
            self._bytes -= waiting.size_bytes
            raise OutboxFull(f"{self._bytes} bytes wait for this client, and the server has no room for more")
        return replaced

    def take(self) -> Encoded | None:
        """Remove and return the oldest message, or None."""
        if not self._messages:
            return None
        waiting = self._messages.popleft()
        self._bytes -= waiting.size_bytes
        self._settle()
        return waiting.encoded

    def clear(self) -> None:
        """Drop everything and hold nothing in the byte budget any more; again is fine."""
        self._messages.clear()
        self._bytes = 0
        self._settle()

    def close(self) -> None:
        """Drop everything and let go of whoever owns this; it takes nothing any more."""
        self.clear()
        self._encode, self._hold, self._holding = _closed, _closed, None

    def _make(self, message: dict[str, Any], encoded: Encoded) -> _Waiting:
        result = None
        if message["type"] == "result":
            result = {name: message[name] for name in ("stream", "ack", "win", "seq")}
        # Characters of JSON are bytes but for labels, which results do not hold.
        return _Waiting(encoded, len(encoded), result)

    def _replace(self, stream: int) -> int:
        """Make unsent results of a stream the drops that they have become for the client."""
        replaced = 0
        for waiting in self._messages:
            if waiting.result is not None and waiting.result["stream"] == stream:
                result = dict(waiting.result)
                seq = result.pop("seq")
                drop = {"type": "drop", **result, "reason": "superseded", "from": seq, "to": seq}
                encoded = self._encode(drop)
                self._bytes += len(encoded) - waiting.size_bytes
                waiting.encoded, waiting.size_bytes, waiting.result = encoded, len(encoded), None
                replaced += 1
        self._settle()
        return replaced

    def _charge(self) -> bool:
        """Hold what lies beyond the free bytes; False when there is no room for it."""
        if self._holding is None:
            self._holding = self._hold()
        return self._holding.take(self._bytes - FREE_BYTES - self._holding.held_bytes)

    def _settle(self) -> None:
        """Give back what is not held any more."""
        holding = self._holding
        if holding is not None and holding.held_bytes:
            holding.give_back(holding.held_bytes - max(0, self._bytes - FREE_BYTES))
