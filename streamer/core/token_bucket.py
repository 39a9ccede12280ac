"""Limits a rate and allows bursts, with a token bucket. Pure; times are monotonic seconds."""

from __future__ import annotations

import math

#: Longest value of `Retry-After`.
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
        """Take ``amount`` tokens; return False and take none if there are too few.

        A full bucket grants even an ``amount`` above ``burst``, which would otherwise never be granted. Its
        number of tokens is then negative.
        """
        self._fill(now)
        if self._tokens < min(amount, self.burst):
            return False
        self._tokens -= amount
        return True

    def spend(self, now: float, amount: float) -> None:
        """Take ``amount`` tokens that were already used, even if their number becomes negative."""
        self._fill(now)
        self._tokens -= amount

    def wait_s(self, now: float, amount: float = 1.0) -> float:
        """Return the time until ``amount`` can be taken; 0 if it can be taken now."""
        self._fill(now)
        missing = min(amount, self.burst) - self._tokens
        return max(0.0, missing / self.per_s)

    def missing(self, now: float) -> float:
        """Return how many tokens the bucket lacks until it is full."""
        self._fill(now)
        return max(0.0, self.burst - self._tokens)

    def retry_after_s(self, now: float, amount: float = 1.0) -> int:
        """Return :meth:`wait_s` in whole seconds, at least 1, as `Retry-After` requires."""
        return max(1, math.ceil(min(_MAX_RETRY_S, self.wait_s(now, amount))))

    def _fill(self, now: float) -> None:
        # A caller's clock may lag behind another's by the length of one step of the event loop.
        if now > self._at:
            self._tokens = min(self.burst, self._tokens + (now - self._at) * self.per_s)
            self._at = now
