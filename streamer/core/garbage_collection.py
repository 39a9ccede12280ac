"""Decides when a worker's garbage collector walks all that lives; thousands of streams make that long.

The interpreter would do it whenever a quarter more has come to live: 0.1 s of processor time with 2,000
streams. WebSocket and HTTP connections leave no cycles when they end, so little is lost by waiting; WebRTC
sessions do, so a walk that is cheap does not wait.
"""

from __future__ import annotations

import gc
import time

#: A walk that takes no longer holds nobody up for longer than a turn of the loop may last.
CHEAP_S = 0.05
#: Between walks that take up to `BEARABLE_S`, or after a peak of bodies and messages.
SOMETIMES_S = 60.0
BEARABLE_S = 0.15
#: Between all others.
RARELY_S = 600.0
#: As the interpreter: a walk is worth it after so many of the middle generation.
_MIDDLE = 10
_NEVER = 1 << 30


class Collector:
    """Asked with each heartbeat. Its own is the oldest generation alone."""

    def __init__(self, now: float) -> None:
        gc.set_threshold(700, 10, _NEVER)
        self._last_at = now
        #: Processor time of the last walk, and how many tasks there were: a measure of what lives.
        self._cost_s = 0.0
        self._tasks = 1

    def due(self, now: float, tasks: int, *, after_peak: bool) -> bool:
        """Whether to walk now, with so many ``tasks``; ``after_peak``: much memory was given up since."""
        if gc.get_count()[2] < _MIDDLE and not after_peak:
            return False
        cost_s = self._cost_s * max(1.0, tasks / self._tasks)
        if cost_s <= CHEAP_S:
            return True
        pause_s = SOMETIMES_S if after_peak or cost_s <= BEARABLE_S else RARELY_S
        return now - self._last_at >= pause_s

    def collect(self, now: float, tasks: int) -> None:
        """Walk everything that has come to live since the start."""
        begun = time.thread_time()
        gc.collect()
        self._cost_s, self._tasks, self._last_at = time.thread_time() - begun, max(1, tasks), now
