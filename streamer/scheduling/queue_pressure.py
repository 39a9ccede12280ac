"""Decides when a queue of POSTs has been full for so long that new clients should use another replica. Pure.

Readiness must not flap, and replicas under the same load must not all leave at once or for good. So each
replica waits an additional random time before it leaves, and returns when half of its queue is free, or after
ten seconds in any case.
"""

from __future__ import annotations

from collections.abc import Callable

#: The queue counts as full if at least the first share of it is used, and has room again below the second.
FULL = 0.9
ROOM = 0.5
#: The queue must have been full for `FULL_S` plus a random time of at most `STAGGER_S`.
FULL_S = 5.0
STAGGER_S = 5.0
#: Longest time for which a replica turns new clients away, and the shortest time until it may do so again.
MAX_GAP_S = 10.0
PRESENT_MIN_S = 30.0


class QueuePressure:
    """Decides from the fill level of a queue whether new clients should be turned away.

    Call :meth:`observe` at least once a second. Times are monotonic seconds.
    """

    def __init__(self, stagger_s: Callable[[], float]) -> None:
        """Start with an empty queue.

        ``stagger_s`` is called each time the queue fills, and returns the random additional wait of this
        replica, 0 to `STAGGER_S`.
        """
        self._stagger_s = stagger_s
        #: Since when the queue has been full without interruption; None while it is not full.
        self._full_since: float | None = None
        self._patience_s = 0.0
        #: Since when new clients are turned away; None while they are accepted.
        self._away_since: float | None = None
        self._present_until = 0.0

    def observe(self, share: float, now: float) -> bool:
        """Record the used share of the queue; return whether new clients should be turned away."""
        if self._away_since is not None:
            if share < ROOM or now - self._away_since >= MAX_GAP_S:
                self._away_since = self._full_since = None
                self._present_until = now + PRESENT_MIN_S
        elif share < FULL:
            self._full_since = None
        elif self._full_since is None:
            self._full_since, self._patience_s = now, FULL_S + self._stagger_s()
        elif now - self._full_since >= self._patience_s and now >= self._present_until:
            self._away_since = now
        return self._away_since is not None
