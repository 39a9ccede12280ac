"""Chooses, while frames are served, whether a single frame runs on one core or on all. No I/O.

A single frame has the device to itself. A measurement at the start depends on the load of the machine at that
moment, so two starts could choose differently. Therefore the detector times single frames while it serves
them. Now and then, one runs in the other mode, and when that mode has been clearly faster for a while, it
becomes the usual one.
"""

from __future__ import annotations

import itertools
import statistics
from collections import deque

#: The other mode must be this many times as fast. On two cores YOLOX-nano gains a factor of 1.2 to 1.7.
WORTHWHILE_GAIN = 1.15
#: Number of recent runs of each mode that are kept; their medians are compared.
_KEPT = 15
#: The other mode is compared after this many test runs, and must win this many comparisons in a row.
TEST_RUNS = 5
WINS = 5
#: One run in this many is a test run: `EARLY_EVERY` applies until the other mode has been measured, and
#: `LATE_EVERY` afterwards, so that test runs do not show in the 99th percentile of a client's latency.
EARLY_EVERY = 8
LATE_EVERY = 128


class SingleFrameChoice:
    """Decides the mode for each single frame: `next` returns it, and `ran` records how long the run took."""

    def __init__(self, *, all_cores: bool) -> None:
        #: Whether single frames usually run on all cores.
        self.all_cores = all_cores
        #: Gives each run a number. If a run ends and its number is not the last one, another run has begun
        #: beside it.
        self._numbers = itertools.count(1)
        self._last = 0
        self._times_s: dict[bool, deque[float]] = {mode: deque(maxlen=_KEPT) for mode in (False, True)}
        self._runs = 0
        self._test_runs = 0
        self._wins = 0

    def enter(self) -> int:
        """Return the number of a run of any kind that begins now. Any thread may call."""
        self._last = number = next(self._numbers)
        return number

    def is_last(self, number: int) -> bool:
        """Return whether no run has begun since this one."""
        return self._last == number

    def next(self) -> bool:
        """Return whether the next single frame runs on all cores."""
        self._runs += 1
        every = EARLY_EVERY if self._test_runs < TEST_RUNS + WINS else LATE_EVERY
        return self.all_cores != (self._runs % every == 0)

    def ran(self, seconds: float, *, all_cores: bool) -> None:
        """Record the duration of a frame that had the device to itself from start to end."""
        self._times_s[all_cores].append(seconds)
        if all_cores == self.all_cores:
            return
        self._test_runs += 1
        usual_s, other_s = self._times_s[self.all_cores], self._times_s[all_cores]
        if min(len(usual_s), len(other_s)) < TEST_RUNS:
            return
        faster = statistics.median(usual_s) >= statistics.median(other_s) * WORTHWHILE_GAIN
        self._wins = self._wins + 1 if faster else 0
        if self._wins >= WINS:
            self.all_cores = all_cores
            self._wins = 0
