"""Weighs frames by their rarest class, so that the samples do not fill up with the commonest one. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

LEAST, MOST = 0.5, 2.0


class Balance:
    """Counts the classes of the samples taken so far. Of one model version; class ids are its own."""

    def __init__(self) -> None:
        self._taken: Counter[int] = Counter()

    def weight(self, classes: Iterable[int]) -> float:
        """Return ``sqrt(n / (C (n_c + 1)))`` of the rarest class c, cut to [0.5, 2]; 1 without boxes.

        n counts classes over all samples, C is the number of classes met so far: of a model with 80 classes
        a camera may see three.
        """
        rarest = min((self._taken[number] for number in set(classes)), default=None)
        total = self._taken.total()
        if rarest is None or not total:
            return 1.0
        return min(MOST, max(LEAST, math.sqrt(total / (len(self._taken) * (rarest + 1)))))

    def take(self, classes: Iterable[int]) -> None:
        """A frame with these classes was taken."""
        self._taken.update(set(classes))
