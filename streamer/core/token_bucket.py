"""A token bucket: how much of something may happen in a while. Pure; times are monotonic seconds."""

from __future__ import annotations

import math

#: The longest time that anybody is asked to stay away.
_MAX_RETRY_S = 3600.0


class TokenBucket:
    """Fills with ``per_s`` tokens a second up to ``burst``; starts full.

    Raises ValueError unless both are above 0.
    """

    __slots__ = ("_at", "_tokens", "burst", "per_s")

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        if not (per_s > 0 and burst > 0):
            raise ValueError(f"rate and burst are above 0; found {per_s} and {burst}")
        self.per_s = per_s
        self.burst = burst
        self._tokens = float(burst)
        self._at = now

    def take(self, now: float, amount: float = 1.0) -> bool:
        """Take ``amount`` tokens; False, and nothing is taken, when there are not so many.

        More than ``burst`` is granted to a full bucket, which is in debt afterwards: otherwise it would never
        be granted.
        """
        self._fill(now)
        if self._tokens < min(amount, self.burst):
            return False
        self._tokens -= amount
        return True

    def spend(self, now: float, amount: float) -> None:
        """Take ``amount`` tokens that are spent already, into debt if need be."""
        self._fill(now)
        self._tokens -= amount

    def wait_s(self, now: float, amount: float = 1.0) -> float:
        """Return the time until ``amount`` can be taken; 0 when it can be now."""
        self._fill(now)
        missing = min(amount, self.burst) - self._tokens
        return max(0.0, missing / self.per_s)

    def retry_after_s(self, now: float, amount: float = 1.0) -> int:
        """Return :meth:`wait_s` in whole seconds, 1 at least, as `Retry-After` wants it."""
        return max(1, math.ceil(min(_MAX_RETRY_S, self.wait_s(now, amount))))

    def _fill(self, now: float) -> None:
        # A caller's clock may lag behind another's by the length of one step of the event loop.
        if now > self._at:
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.per_s)
            self._at = now
