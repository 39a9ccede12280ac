"""Provides the mailbox of a stream, in which its encoded frames wait to be started. Pure."""

from __future__ import annotations

from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class Mailbox(Generic[Entry]):
    """Holds the waiting frames of a stream: the newest one in mode `live`, a short queue in mode `all`.

    Frames wait encoded, so that a superseded frame costs no decoding.
    """

    def __init__(self, capacity: int, *, newest_wins: bool) -> None:
        if capacity < 1:
            raise ValueError(f"a mailbox holds at least one entry, not {capacity}")
        #: The waiting entries, a few at most. Other objects check whether it is empty, but only the mailbox
        #: changes it. An empty deque would take 0.7 KB of every stream.
        self.entries: list[Entry] = []
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
        displaced = self.entries.pop(0)
        self.entries.append(entry)
        return displaced

    def take(self) -> Entry | None:
        """Remove and return the next entry; return None if there is none."""
        return self.entries.pop(0) if self.entries else None

    def clear(self) -> list[Entry]:
        """Remove and return all entries."""
        entries = list(self.entries)
        self.entries.clear()
        return entries
