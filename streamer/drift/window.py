"""The last rows of one group, and the window that is judged. Pure."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass

from streamer.drift.calibration import LEAST_ROWS
from streamer.drift.columns import Row
from streamer.drift.row_throttle import MAX_SHARE

#: The window is cut into so many parts; at least this share of them must hold rows.
PARTS, LEAST_COVERAGE = 30, 0.5


@dataclass(frozen=True, slots=True)
class Window:
    """Rows of (``begin``, ``end``], in order of capture."""

    begin: float
    end: float
    rows: list[Row]

    @property
    def coverage(self) -> float:
        """Share of the window's parts in which there are rows."""
        part_s = (self.end - self.begin) / PARTS
        return len({math.ceil((row.at - self.begin) / part_s) for row in self.rows}) / PARTS

    @property
    def enough(self) -> bool:
        """Whether it can be judged."""
        return len(self.rows) >= LEAST_ROWS and self.coverage >= LEAST_COVERAGE


class Recent:
    """Rows that a window may still need; the oldest give way."""

    def __init__(self, window_s: float, interval_s: float, *, mixed: bool) -> None:
        self._window_s = window_s
        #: Streams that come once and go: none of them may speak for the group.
        self._mixed = mixed
        room = 1.25 * window_s / interval_s * (MAX_SHARE if mixed else 2)
        self._rows: deque[Row] = deque(maxlen=max(2 * LEAST_ROWS, math.ceil(room)))

    def add(self, row: Row) -> None:
        """Take in one."""
        self._rows.append(row)
        while self._rows[0].at < row.at - 1.25 * self._window_s:
            self._rows.popleft()

    def clear(self) -> None:
        """Forget them: they were judged by another reference."""
        self._rows.clear()

    @property
    def newest(self) -> float:
        """Capture of the newest row; 0 without."""
        return self._rows[-1].at if self._rows else 0.0

    def window(self, end: float) -> Window:
        """Return the window that ends then."""
        begin = end - self._window_s
        rows = [row for row in self._rows if begin < row.at <= end]
        return Window(begin, end, self._shared(rows) if self._mixed else rows)

    @staticmethod
    def _shared(rows: list[Row]) -> list[Row]:
        """Return rows of which no stream gives more than a quarter of all there were, evenly taken."""
        most = math.ceil(len(rows) / MAX_SHARE)
        counts = Counter(row.session for row in rows)
        told: Counter[int] = Counter()
        kept = []
        for row in rows:
            count, place = counts[row.session], told[row.session]
            told[row.session] += 1
            if count <= most or place * most // count != (place - 1) * most // count:
                kept.append(row)
        return kept
