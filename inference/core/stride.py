"""Stride scheduling: shares a resource between a few named parties in proportion to their weights.

Used by the planner for versions and for the POST share, and by the worker's dispatcher for the same
choice one step earlier. After Waldspurger and Weihl, "Stride Scheduling" (MIT TM-528, 1995).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Generic, TypeVar

Party = TypeVar("Party", bound=Hashable)


class Stride(Generic[Party]):
    """Virtual time per party; who has used the least, by weight, is next.

    A party that had nothing to do does not save up: on its return it starts level with the others.
    """

    def __init__(self, weights: Mapping[Party, float]) -> None:
        self._weights = dict(weights)
        self._used: dict[Party, float] = dict.fromkeys(weights, 0.0)
        self._active: frozenset[Party] = frozenset()

    def pick(self, waiting: Iterable[Party]) -> Party:
        """Return the next of the ``waiting`` parties; ties go to the first. Raises ValueError when empty."""
        parties = list(waiting)
        if not parties:
            raise ValueError("nobody waits")
        staying = [self._used[party] for party in parties if party in self._active]
        floor = min(staying) if staying else max(self._used.values())
        for party in parties:
            if party not in self._active:
                self._used[party] = max(self._used[party], floor)
        self._active = frozenset(parties)
        return min(parties, key=self._used.__getitem__)

    def charge(self, party: Party, amount: float) -> None:
        """Account ``amount`` of the resource (seconds, or items) to ``party``."""
        self._used[party] += amount / self._weights[party]
