"""Computes how long to wait before the next attempt, after failures in a row. Pure; the caller waits."""

from __future__ import annotations

import random
from collections.abc import Callable

#: Longest delay that a server can ask for with `Retry-After`.
MAX_ASKED_S = 300.0
#: Largest random time added to a delay that a server asked for, because it asks all clients for the same.
ASKED_SPREAD_S = 0.5
_MAX_DOUBLINGS = 20


class Backoff:
    """Computes delays whose upper end doubles with each failure in a row.

    Every delay is random, so that the clients of a restarted server, and the replicas that use a failed
    store, do not all return at the same time.
    """

    def __init__(
        self,
        uniform: Callable[[float, float], float] = random.uniform,
        *,
        first_s: float = 1.0,
        max_s: float = 30.0,
        least_s: float | None = 0.5,
    ) -> None:
        """Set the ends of the delays: ``first_s`` is the first upper end, and ``max_s`` the largest one.

        Each delay is a random time from ``least_s`` to its upper end; if ``least_s`` is None, from half of
        the upper end. ``uniform`` is ``random.uniform`` or a replacement in tests.
        """
        self._uniform = uniform
        self._first_s = first_s
        self._max_s = max_s
        self._least_s = least_s
        self.failures = 0

    def next_s(self, asked_s: float | None = None, *, floor_s: float = 0.0, factor: float = 1.0) -> float:
        """Count a failure and return the delay after it in seconds.

        ``asked_s`` is the delay that the server asked for; it replaces the computed one. ``factor``
        multiplies the upper end of this delay, and ``floor_s`` is the least upper end; the upper end never
        exceeds ``max_s``.
        """
        self.failures += 1
        if asked_s is not None:
            return min(max(asked_s, 0.0), MAX_ASKED_S) + self._uniform(0.0, ASKED_SPREAD_S)
        doubled_s = factor * self._first_s * 2.0 ** min(self.failures - 1, _MAX_DOUBLINGS)
        longest_s = min(self._max_s, max(floor_s, doubled_s))
        return self._uniform(longest_s / 2 if self._least_s is None else self._least_s, longest_s)

    def reset(self) -> None:
        """Start over after a success."""
        self.failures = 0
