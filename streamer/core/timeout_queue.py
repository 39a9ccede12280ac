"""Implements many timeouts with one timer of the event loop, for timeouts that are nearly always cancelled.

Every POST sets two timeouts and cancels them once it is answered. To create, sort and cancel a timer of the
event loop takes some 20 calls; a timeout of this queue takes 6.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Callable

#: The heap may contain this many cancelled timeouts more than it contains active ones.
MAX_CANCELLED = 128
#: Cancelling a timeout whose number is a multiple of this checks how many cancelled ones the heap contains.
_CHECK_EVERY = 64


class TimeoutQueue:
    """Calls functions at given times, which are monotonic seconds. Use it only on the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        #: Heap of time and number of each timeout, including some cancelled ones.
        self._heap: list[tuple[float, int]] = []
        #: The callback of each active timeout, by its number.
        self._calls: dict[int, Callable[[], object]] = {}
        self._numbers = itertools.count(1)
        #: Time for which the timer is set; infinite while there is none.
        self._due = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return the number of timeouts in the heap, including cancelled ones."""
        return len(self._heap)

    def schedule(self, when: float, call: Callable[[], object]) -> int:
        """Schedule ``call`` for the time ``when`` or soon after; return the timeout's number, 1 or more."""
        number = next(self._numbers)
        self._calls[number] = call
        heapq.heappush(self._heap, (when, number))
        if when < self._due:
            self._set_timer(when)
        return number

    def cancel(self, number: int) -> None:
        """Cancel a timeout; do nothing for number 0 or for a timeout that has run or was cancelled."""
        self._calls.pop(number, None)
        if not number % _CHECK_EVERY and len(self._heap) > 2 * len(self._calls) + MAX_CANCELLED:
            # Change the list in place, because a callback of `run_due` may have called this.
            self._heap[:] = [entry for entry in self._heap if entry[1] in self._calls]
            heapq.heapify(self._heap)

    def run_due(self) -> None:
        """Call the callbacks of all timeouts that are due; the timer calls this."""
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
                self._set_timer(heap[0][0])

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = when
        self._timer = asyncio.get_running_loop().call_at(when, self.run_due)
