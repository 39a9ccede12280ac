"""Which frames become rows: one of each stream in an interval, jittered. Pure; times are given.

By the time of capture, unix seconds: rows are compared with the time of day and outlive processes. A clock
that is set back costs nothing.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict

JITTER = 0.2
#: Streams whose turn is remembered; the one unheard for longest is forgotten.
MAX_STREAMS = 1000
#: Streams of one name share a group, and give so many rows an interval together.
MAX_SHARE = 4


class Pace:
    """``wants()`` says whether a frame becomes a row."""

    def __init__(self, interval_s: float, rng: random.Random) -> None:
        self._interval_s = interval_s
        self._rng = rng
        #: By stream, and by group: time of the last row and of the next.
        self._turns: OrderedDict[tuple[str, int], tuple[float, float]] = OrderedDict()

    def wants(self, group: str, session: int, at: float) -> bool:
        """Whether the frame that this stream captured ``at`` becomes a row; it is taken note of then."""
        own, all_of_it = (group, session), (group, -1)
        if not self._due(own, at) or not self._due(all_of_it, at):
            return False
        jittered = self._interval_s * self._rng.uniform(1 - JITTER, 1 + JITTER)
        self._turns[own] = (at, at + jittered)
        self._turns[all_of_it] = (at, at + jittered / MAX_SHARE)
        for key in (own, all_of_it):
            self._turns.move_to_end(key)
        while len(self._turns) > 2 * MAX_STREAMS:
            self._turns.popitem(last=False)
        return True

    def _due(self, key: tuple[str, int], at: float) -> bool:
        last, following = self._turns.get(key, (-math.inf, -math.inf))
        return at >= following or at < last
