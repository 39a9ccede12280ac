"""Learns the factor by which the expected wait of a POST is raised, so that very few POSTs wait too long.
Pure.

An estimate that is right on average is too short for every second image near the bound. This class learns
from the images that were admitted: the margin rises when one is refused after all because it waited too long,
and falls a little with each that had its turn in time. That keeps the refusals at about one in five hundred
(stochastic approximation of a quantile).
"""

from __future__ import annotations

#: Smallest, initial and largest factor. Beyond the largest, the machine has practically stopped.
_LEAST, _START, _MOST = 1.1, 1.5, 3.0
_UP = 1.15
_DOWN = 0.9997
#: Images that are refused within this time have one cause and count once.
_SAME_CAUSE_S = 0.25
#: An image that waited for less than this says nothing about the bound.
_LEAST_WAIT_S = 0.1


class WaitMargin:
    """Holds :attr:`factor`, by which an expected wait is multiplied before it is compared with the bound."""

    def __init__(self) -> None:
        self.factor = _START
        self._raised_at = float("-inf")

    def missed(self, now: float) -> None:
        """Raise the factor: an admitted image has waited too long and was refused."""
        if now - self._raised_at >= _SAME_CAUSE_S:
            self._raised_at = now
            self.factor = min(_MOST, self.factor * _UP)

    def kept(self, waited_s: float) -> None:
        """Lower the factor a little: an admitted image had its turn in time."""
        if waited_s >= _LEAST_WAIT_S:
            self.factor = max(_LEAST, self.factor * _DOWN)
