"""Bytes per second of late, for the progress line. Pure: times are handed in."""

from __future__ import annotations

from collections import deque

#: The rate is a mean over this long, seconds.
SPAN_S = 5.0


class ByteRate:
    """Mean rate over the last seconds; a resumed beginning does not count as having just come."""

    def __init__(self) -> None:
        #: Times in seconds and bytes that were there then.
        self._marks: deque[tuple[float, int]] = deque()

    def mark(self, now: float, done: int) -> None:
        """Note how many bytes are there."""
        if self._marks and done < self._marks[-1][1]:
            self._marks.clear()  # begun anew
        self._marks.append((now, done))
        while len(self._marks) > 2 and self._marks[0][0] < now - SPAN_S:
            self._marks.popleft()

    def per_s(self) -> float:
        """Return bytes per second; 0 while there is nothing to tell it from."""
        if len(self._marks) < 2:
            return 0.0
        (begun, first), (ended, last) = self._marks[0], self._marks[-1]
        return (last - first) / max(ended - begun, 1e-3)
