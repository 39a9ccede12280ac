"""Provides the mailbox of a stream, in which its encoded frames wait to be started. Pure."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class Mailbox(Generic[Entry]):
    """Holds the waiting frames of a stream: the newest one in mode `live`, a short queue in mode `all`.

    Frames wait encoded, so that a superseded frame costs no decoding.
    """

    def __init__(self, capacity: int, *, newest_wins: bool) -> None:
        if capacity < 1:
            raise ValueError(f"a mailbox holds at least one entry, not {capacity}")
        #: The waiting entries. Other objects check whether it is empty, but only the mailbox changes it.
        self.entries: deque[Entry] = deque()
        self._capacity = capacity
        self._newest_wins = newest_wins

    def __len__(self) -> int:
        return len(self.entries)

    def put(self, entry: Entry) -> Entry | None:
        """Add an entry and return the displaced one, if any.

        If the newest entry does not win and the mailbox is full, ``entry`` itself is returned.
        """
        if len(self.entries) < self._capacity:
            self.entries.append(entry)
            return None
        if not self._newest_wins:
            return entry
        displaced = self.entries.popleft()
        self.entries.append(entry)
        return displaced

    def take(self) -> Entry | None:
        """Remove and return the next entry; return None if there is none."""
        return self.entries.popleft() if self.entries else None

    def clear(self) -> list[Entry]:
        """Remove and return all entries."""
        entries = list(self.entries)
        self.entries.clear()
        return entries
