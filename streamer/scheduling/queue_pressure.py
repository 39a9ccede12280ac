"""When a queue of POSTs has been full for so long that new clients should go to another replica. Pure.

Readiness must not flap, and replicas under the same load must not leave all at once or for good: each waits a
random time more, is back as soon as half of its queue is free, and after ten seconds in any case.
"""

from __future__ import annotations

from collections.abc import Callable

#: Share of the queue from which on it counts as full, and below which it has room again.
FULL = 0.9
ROOM = 0.5
#: It must have been full for so long, and a random time up to the second figure more.
FULL_S = 5.0
STAGGER_S = 5.0
#: Longest absence, and the shortest presence after one.
AWAY_MAX_S = 10.0
PRESENT_MIN_S = 30.0


class QueuePressure:
    """Give :meth:`observe` the queue's state once a second or more often. Times are monotonic seconds."""

    def __init__(self, stagger_s: Callable[[], float]) -> None:
        """``stagger_s`` returns the time that this replica waits more, 0 to `STAGGER_S`; asked each time."""
        self._stagger_s = stagger_s
        #: Since when the queue has been full without a break; None while it is not.
        self._full_since: float | None = None
        self._patience_s = 0.0
        #: Since when new clients are kept away; None while they are welcome.
        self._away_since: float | None = None
        self._stays_until = 0.0

    def observe(self, share: float, now: float) -> bool:
        """Take in which share of the queue is taken; returns whether new clients should stay away."""
        if self._away_since is not None:
            if share < ROOM or now - self._away_since >= AWAY_MAX_S:
                self._away_since = self._full_since = None
                self._stays_until = now + PRESENT_MIN_S
        elif share < FULL:
            self._full_since = None
        elif self._full_since is None:
            self._full_since, self._patience_s = now, FULL_S + self._stagger_s()
        elif now - self._full_since >= self._patience_s and now >= self._stays_until:
            self._away_since = now
        return self._away_since is not None
