"""Limits the bytes that a worker holds for its clients: arriving bodies, waiting answers and messages. Pure.

One client may hold at most twice the number of free bytes. Network switches use such a dynamic threshold for
their packet buffers. A single client gets up to two thirds of the budget, two greedy clients get two fifths
each, and some bytes stay free for others.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

#: Most bytes of one client, as a multiple of the free bytes.
_ALPHA = 2
#: Bytes counted for a piece in addition to its content, because many small pieces need more memory than one.
PIECE_OVERHEAD_BYTES = 64


class ByteBudget:
    """Keeps the budget of one worker; calls ``on_refusal`` with the kind of bytes that it refuses."""

    def __init__(self, limit_bytes: int, on_refusal: Callable[[str], None] = lambda kind: None) -> None:
        self.limit_bytes = limit_bytes
        self._on_refusal = on_refusal
        #: Held bytes of each client that holds any, and of each kind. A `Counter` would need more calls.
        self._by_client: dict[str, int] = {}
        self._by_kind: dict[str, int] = {}
        self._held = 0
        self._peak = 0

    @property
    def held_bytes(self) -> int:
        """Bytes held for all clients."""
        return self._held

    def by_kind(self) -> dict[str, int]:
        """Return the held bytes by kind."""
        return dict(self._by_kind)

    def take_peak(self) -> int:
        """Return the largest number of bytes held at one time since the last call."""
        peak, self._peak = self._peak, self._held
        return peak

    def hold(self, client: str, kind: str) -> Holding:
        """Return an empty holding for a client; the caller must release it."""
        return Holding(self, client, kind)

    def _take(self, client: str, kind: str, count: int) -> bool:
        own = self._by_client.get(client, 0) + count
        free = self.limit_bytes - self._held - count
        if own > _ALPHA * free:
            self._on_refusal(kind)
            return False
        self._by_client[client] = own
        self._by_kind[kind] = self._by_kind.get(kind, 0) + count
        self._held += count
        self._peak = max(self._peak, self._held)
        return True

    def _give_back(self, client: str, kind: str, count: int) -> None:
        self._held -= count
        self._by_kind[kind] -= count
        self._by_client[client] -= count
        if not self._by_client[client]:
            del self._by_client[client]


class Holding:
    """Counts the bytes of one body, answer or queue of messages."""

    __slots__ = ("_budget", "_client", "_kind", "held_bytes")

    def __init__(self, budget: ByteBudget, client: str, kind: str) -> None:
        self._budget = budget
        self._client = client
        self._kind = kind
        self.held_bytes = 0

    def take(self, count: int) -> bool:
        """Add bytes; returns False and adds none if the client or the worker would exceed its limit."""
        if not self._budget._take(self._client, self._kind, count):  # noqa: SLF001 - the budget's other half
            return False
        self.held_bytes += count
        return True

    def give_back(self, count: int) -> None:
        """Return bytes to the budget."""
        if count:
            self._budget._give_back(self._client, self._kind, count)  # noqa: SLF001 - see above
            self.held_bytes -= count

    def release(self) -> None:
        """Return all bytes to the budget. Calling it again does no harm."""
        self.give_back(self.held_bytes)

    def __enter__(self) -> Holding:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
