"""The mailbox of a stream, in which its encoded frames wait to be started. Pure."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class Mailbox(Generic[Entry]):
    """One slot in mode `live`, where the newest frame wins; a short queue in mode `all`.

    Frames wait encoded, so that a superseded frame costs no decoding.
    """

    def __init__(self, capacity: int, *, newest_wins: bool) -> None:
        if capacity < 1:
            raise ValueError(f"a mailbox holds at least one entry, not {capacity}")
        #: What waits. Others only check whether it is empty; only the mailbox changes it.
        self.entries: deque[Entry] = deque()
        self._capacity = capacity
        self._newest_wins = newest_wins

    def __len__(self) -> int:
        return len(self.entries)

    def put(self, entry: Entry) -> Entry | None:
        """Add an entry. Returns the one that it displaced, which is ``entry`` itself when a queue is full."""
        if len(self.entries) < self._capacity:
            self.entries.append(entry)
            return None
        if not self._newest_wins:
            return entry
        displaced = self.entries.popleft()
        self.entries.append(entry)
        return displaced

    def take(self) -> Entry | None:
        """Remove and return the next entry, or None when empty."""
        return self.entries.popleft() if self.entries else None

    def clear(self) -> list[Entry]:
        """Remove and return everything."""
        entries = list(self.entries)
        self.entries.clear()
        return entries
