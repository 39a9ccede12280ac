"""Max-min fair frame rates under overload. Pure.

The dispatcher measures demand; this decides what each stream is granted. After Bertsekas and Gallager,
"Data Networks", section 6.5.2: raise all shares together, freeze whoever is satisfied.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

#: A grant is raised only when the fair share exceeds it by this factor for this long.
RAISE_FACTOR = 1.2
RAISE_AFTER_S = 3.0


def water_level(demands: list[float], capacity: float) -> float:
    """Return the largest rate that every unsatisfied party can have; infinite when all fit.

    ``demands`` and ``capacity`` in frames per second; infinite demands are allowed.
    """
    left = capacity
    ordered = sorted(demands)
    for index, demand in enumerate(ordered):
        level = left / (len(ordered) - index)
        if demand > level:
            return level
        left -= demand
    return math.inf


@dataclass(slots=True)
class _Grant:
    fps: float
    #: Since when the share has been high enough to raise the grant; None while it is not.
    since: float | None = None


class FairRates(Generic[Key]):
    """Grants per stream: lowered at once, raised only after the share has stayed higher for a while."""

    def __init__(self) -> None:
        self._grants: dict[Key, _Grant] = {}

    def update(self, demands: Mapping[Key, float], capacity: float, now: float) -> dict[Key, float | None]:
        """Return the grants that changed: frames per second, or None where the limit was lifted."""
        level = water_level(list(demands.values()), capacity)
        changed: dict[Key, float | None] = {}
        for key in [key for key in self._grants if key not in demands]:
            del self._grants[key]
        for key, demand in demands.items():
            grant = self._grants.get(key)
            limited = demand > level
            if grant is None:
                if limited:
                    self._grants[key] = _Grant(level)
                    changed[key] = level
                continue
            target = level if limited else math.inf
            if target < grant.fps:
                self._grants[key] = _Grant(level)
                changed[key] = level
            elif target < grant.fps * RAISE_FACTOR:
                grant.since = None
            elif grant.since is None:
                grant.since = now
            elif now - grant.since >= RAISE_AFTER_S:
                changed[key] = self._raise(key, target)
        return changed

    def _raise(self, key: Key, target: float) -> float | None:
        if math.isinf(target):
            del self._grants[key]
            return None
        self._grants[key] = _Grant(target)
        return target
