"""Keeps the recent rows of a group, and cuts windows out of them. Pure."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass

from streamer.drift.reference import MIN_ROWS
from streamer.drift.rows import Row

#: A window is divided into this many parts, and at least this share of them must contain rows.
PARTS, MIN_COVERAGE = 30, 0.5
#: Streams of the same name form one group. All streams of a group together produce at most this many rows in
#: an interval. If many short-lived streams share a group, none contributes more than one in this many rows of
#: a window.
MAX_SHARE = 4


@dataclass(frozen=True, slots=True)
class Window:
    """Holds the rows of (``begin``, ``end``], in order of capture."""

    begin: float
    end: float
    rows: list[Row]

    @property
    def coverage(self) -> float:
        """Share of the window's ``PARTS`` equal parts that contain rows."""
        part_s = (self.end - self.begin) / PARTS
        return len({math.ceil((row.at - self.begin) / part_s) for row in self.rows}) / PARTS

    @property
    def enough(self) -> bool:
        """Whether the window has enough rows to be scored."""
        return len(self.rows) >= MIN_ROWS and self.coverage >= MIN_COVERAGE


class RecentRows:
    """Keeps the rows that a window may still need, and drops older ones."""

    def __init__(self, window_s: float, interval_s: float, *, mixed: bool) -> None:
        self._window_s = window_s
        #: Whether many short-lived streams share this group, so that the share of each one is limited.
        self._mixed = mixed
        capacity = 1.25 * window_s / interval_s * (MAX_SHARE if mixed else 2)
        self._rows: deque[Row] = deque(maxlen=max(2 * MIN_ROWS, math.ceil(capacity)))

    def add(self, row: Row) -> None:
        """Add the newest row."""
        self._rows.append(row)
        while self._rows[0].at < row.at - 1.25 * self._window_s:
            self._rows.popleft()

    def clear(self) -> None:
        """Drop all rows, because they were scored against another reference."""
        self._rows.clear()

    @property
    def newest(self) -> float:
        """Capture time of the newest row; 0 without rows."""
        return self._rows[-1].at if self._rows else 0.0

    def between(self, begin: float, end: float) -> list[Row]:
        """Return the rows of [``begin``, ``end``) in order of time."""
        return sorted((row for row in self._rows if begin <= row.at < end), key=lambda row: row.at)

    def window(self, end: float) -> Window:
        """Return the window that ends at that time."""
        begin = end - self._window_s
        rows = [row for row in self._rows if begin < row.at <= end]
        return Window(begin, end, self._limit_shares(rows) if self._mixed else rows)

    @staticmethod
    def _limit_shares(rows: list[Row]) -> list[Row]:
        """Thin out, evenly over the window, the rows of each stream that has more than a quarter of all."""
        most = math.ceil(len(rows) / MAX_SHARE)
        counts = Counter(row.session for row in rows)
        passed: Counter[int] = Counter()
        kept = []
        for row in rows:
            count, place = counts[row.session], passed[row.session]
            passed[row.session] += 1
            if count <= most or place * most // count != (place - 1) * most // count:
                kept.append(row)
        return kept
