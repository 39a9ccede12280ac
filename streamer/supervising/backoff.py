"""Decides how long to wait before a process that has ended starts again, and when that is hopeless."""

from __future__ import annotations

import random
from dataclasses import dataclass

FIRST_S = 0.1
MAX_S = 30.0
#: A process that has lived this long starts again without delay.
HEALTHY_AFTER_S = 60.0
#: Deaths without a healthy period in between, after which a restart is not expected to help.
MAX_DEATHS = 20


@dataclass(slots=True)
class Backoff:
    """Delay before the next start of one process."""

    deaths: int = 0

    def next_delay_s(self, lived_s: float) -> float:
        """Return the delay after a process that lived ``lived_s``. Raises OverflowError at the limit."""
        if lived_s >= HEALTHY_AFTER_S:
            self.deaths = 0
        self.deaths += 1
        if self.deaths > MAX_DEATHS:
            raise OverflowError(f"{self.deaths - 1} deaths in a row")
        if self.deaths == 1:
            return 0.0  # a single crash costs the streams no more than the load time
        delay_s = min(MAX_S, FIRST_S * 2.0 ** (self.deaths - 2))
        return delay_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
