"""Many alarms behind one timer of the event loop, for those that hardly ever ring.

Every POST sets two and cancels them when it is answered. A timer of the loop takes some 20 calls to be made,
compared with others and thrown away; an alarm takes 6.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Callable

#: Cancelled alarms whose times may be kept, beside as many as others.
MAX_CANCELLED = 128
#: Every so many alarms it is looked at whether there are more.
_LOOKED_AT = 64


class Alarms:
    """Times are monotonic seconds, as the loop has them. Everything happens on the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: Time and number of each, the earliest first; also of some that were cancelled.
        self._heap: list[tuple[float, int]] = []
        #: What each is to call, by its number.
        self._calls: dict[int, Callable[[], object]] = {}
        self._numbers = itertools.count(1)
        #: For when the timer is set; infinite while there is none.
        self._due = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Times that are kept."""
        return len(self._heap)

    def set(self, when: float, call: Callable[[], object]) -> int:
        """Have ``call`` called at a time, or soon after; returns the number of the alarm, 1 or more."""
        number = next(self._numbers)
        self._calls[number] = call
        heapq.heappush(self._heap, (when, number))
        if when < self._due:
            self._wind(when)
        return number

    def cancel(self, number: int) -> None:
        """Let an alarm not ring; nothing happens to one that has rung or was cancelled, and to number 0."""
        self._calls.pop(number, None)
        if not number % _LOOKED_AT and len(self._heap) > 2 * len(self._calls) + MAX_CANCELLED:
            # In place: this may be one of those that ring.
            self._heap[:] = [entry for entry in self._heap if entry[1] in self._calls]
            heapq.heapify(self._heap)

    def ring(self) -> None:
        """Call what is due, as the timer does."""
        heap, now = self._heap, self._clock()
        self._due = math.inf
        try:
            while heap and heap[0][0] <= now:
                call = self._calls.pop(heapq.heappop(heap)[1], None)
                if call is not None:
                    call()
        finally:
            while heap and heap[0][1] not in self._calls:
                heapq.heappop(heap)
            if heap:
                self._wind(heap[0][0])

    def _wind(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = when
        self._timer = asyncio.get_running_loop().call_at(when, self.ring)
