"""How long to wait before connecting again: full jitter between 0.5 s and 30 s. Pure; the stream sleeps."""

from __future__ import annotations

import random
from collections.abc import Callable

SHORTEST_S = 0.5
LONGEST_S = 30.0


class Backoff:
    """Delays that grow with each failure in a row.

    Full jitter: a uniform draw from the whole range, so that clients of a restarted server do not come
    back in step. ``uniform`` is ``random.uniform``, or a fake.
    """

    def __init__(self, uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._uniform = uniform
        self._failures = 0

    def next_s(self, asked_s: float | None = None) -> float:
        """Return the next delay in seconds; ``asked_s`` is what the server asked for, and wins.

        The first delay lies in 0.5..1 s; the upper end doubles with every failure, up to 30 s.
        """
        self._failures += 1
        if asked_s is not None:
            # A little spread even here: the server said the same to everybody.
            return min(max(asked_s, 0.0), 10 * LONGEST_S) + self._uniform(0.0, SHORTEST_S)
        top = min(LONGEST_S, SHORTEST_S * 2.0 ** min(self._failures, 16))
        return self._uniform(SHORTEST_S, top)

    def reset(self) -> None:
        """The connection works again."""
        self._failures = 0
