"""When to try a store again that has failed. Pure; the caller waits and tells the time it has."""

from __future__ import annotations

import random

#: Pauses after failures: the first, doubling to the last.
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 300.0
#: So many failures in a row open the breaker: one attempt after each pause, which is this long at least.
OPENS_AFTER = 5
OPEN_PAUSE_S = 30.0
#: A setting that is wrong is not mended in a second.
MISCONFIGURED_PAUSE_S = 60.0


class Breaker:
    """Counts failures in a row."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._failures = 0
        self._misconfigured = False

    @property
    def is_open(self) -> bool:
        """Whether attempts are held back."""
        return self._misconfigured or self._failures >= OPENS_AFTER

    def succeeded(self) -> None:
        """An object was stored."""
        self._failures, self._misconfigured = 0, False

    def failed(self, *, misconfigured: bool) -> float:
        """Return the pause in seconds until the next attempt, jittered between half and all of it."""
        self._failures += 1
        self._misconfigured = misconfigured
        pause_s = FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 20)
        if misconfigured:
            pause_s = MISCONFIGURED_PAUSE_S * 2.0 ** min(self._failures - 1, 20)
        elif self.is_open:
            # Full jitter above the least pause: many replicas lose the same store at the same moment.
            pause_s = max(2 * OPEN_PAUSE_S, pause_s)
        return min(LAST_PAUSE_S, pause_s) * self._rng.uniform(0.5, 1.0)
