"""Whether a frame that has the device to itself runs on one core or on all; decided while serving. Pure.

A short measurement at the start depends on what the machine did at that moment, so that two starts decided
differently. Here single frames are timed as they come: now and then one runs the other way, and when the
other way has been clearly quicker for a while, it becomes the usual one.
"""

from __future__ import annotations

import itertools
import statistics
from collections import deque

#: The other way must be this many times as quick. On two cores YOLOX-nano gains 1.2 to 1.7 by both.
WORTHWHILE_GAIN = 1.15
#: Runs of each way whose median is compared.
_KEPT = 15
#: Trials of the other way before it is judged, and judgements in a row that it must win.
TRIALS = 5
WINS = 5
#: One run in so many is a trial until the other way is known, and afterwards, where it must not show in the
#: 99th percentile of a client's latency.
EARLY_EVERY = 8
LATE_EVERY = 128


class SingleFrameChoice:
    """``next()`` says how a single frame runs, ``ran()`` how long it took."""

    def __init__(self, *, all_cores: bool) -> None:
        #: The usual way.
        self.all_cores = all_cores
        #: Numbers of all runs, of which the last one tells the others that they were not alone.
        self._numbers = itertools.count(1)
        self._last = 0
        self._times_s: dict[bool, deque[float]] = {way: deque(maxlen=_KEPT) for way in (False, True)}
        self._runs = 0
        self._trials = 0
        self._wins = 0

    def enter(self) -> int:
        """Number a run, of whatever kind, that begins. Any thread may call."""
        self._last = number = next(self._numbers)
        return number

    def is_last(self, number: int) -> bool:
        """Whether no run has begun since this one."""
        return self._last == number

    def next(self) -> bool:
        """Return whether the next single frame runs on all cores."""
        self._runs += 1
        every = EARLY_EVERY if self._trials < TRIALS + WINS else LATE_EVERY
        return self.all_cores != (self._runs % every == 0)

    def ran(self, seconds: float, *, all_cores: bool) -> None:
        """Learn from a frame that had the device to itself from its start to its end."""
        self._times_s[all_cores].append(seconds)
        if all_cores == self.all_cores:
            return
        self._trials += 1
        usual_s, other_s = self._times_s[self.all_cores], self._times_s[all_cores]
        if min(len(usual_s), len(other_s)) < TRIALS:
            return
        quicker = statistics.median(usual_s) >= statistics.median(other_s) * WORTHWHILE_GAIN
        self._wins = self._wins + 1 if quicker else 0
        if self._wins >= WINS:
            self.all_cores = all_cores
            self._wins = 0
