"""By how much the expected wait of a POST is exaggerated, so that hardly any waits too long. Pure.

An expectation that is right on average is too short for every second image at the bound. This learns from
those that were let in: it moves the margin up when one was sent away after all, and down a little with each
that had its turn in time, which holds the former to about one in five hundred (stochastic approximation of a
quantile).
"""

from __future__ import annotations

#: Factors: the least, where it begins, and the most, beyond which the machine has stopped and nothing helps.
_LEAST, _START, _MOST = 1.1, 1.5, 3.0
_UP = 1.15
_DOWN = 0.9997
#: Images that are sent away in one go have one cause, and count once.
_SAME_CAUSE_S = 0.25
#: One that waited for less says nothing of the bound.
_LEAST_WAIT_S = 0.1


class WaitMargin:
    """Multiply an expected wait by :attr:`factor` before it is judged."""

    def __init__(self) -> None:
        self.factor = _START
        self._raised_at = float("-inf")

    def missed(self, now: float) -> None:
        """An image that was let in has waited too long and was sent away."""
        if now - self._raised_at >= _SAME_CAUSE_S:
            self._raised_at = now
            self.factor = min(_MOST, self.factor * _UP)

    def kept(self, waited_s: float) -> None:
        """An image that was let in had its turn."""
        if waited_s >= _LEAST_WAIT_S:
            self.factor = max(_LEAST, self.factor * _DOWN)
