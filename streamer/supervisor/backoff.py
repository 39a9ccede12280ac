"""Decides how long to wait before a process that has ended starts again, and when that is hopeless."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

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
    max_deaths: int = MAX_DEATHS

    def next_delay_s(self, lived_s: float) -> float:
        """Return the delay after a process that lived ``lived_s``. Raises OverflowError at the limit."""
        if lived_s >= HEALTHY_AFTER_S:
            self.deaths = 0
        self.deaths += 1
        if self.deaths > self.max_deaths:
            raise OverflowError(f"{self.deaths - 1} deaths in a row")
        if self.deaths == 1:
            return 0.0  # a single crash costs the streams no more than the load time
        delay_s = min(MAX_S, FIRST_S * 2.0 ** min(self.deaths - 2, 20))
        return delay_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


#: So many deaths in this time: the process would be ready for moments only, so the replica is not.
LOOP_DEATHS = 5
LOOP_S = 60.0
#: Until none has died for so long.
CALM_S = 10.0


@dataclass(slots=True)
class CrashLoop:
    """Whether processes die so often that a balancer had better not come back between two deaths."""

    _deaths: list[float] = field(default_factory=list)

    def died(self, now: float) -> None:
        """Note a death at this time, CLOCK_MONOTONIC seconds."""
        self._deaths = [*self._deaths[1 - LOOP_DEATHS :], now]

    def goes_on(self, now: float) -> bool:
        """Return whether there were `LOOP_DEATHS` within `LOOP_S`, the last of them a moment ago."""
        if len(self._deaths) < LOOP_DEATHS:
            return False
        return self._deaths[-1] - self._deaths[0] < LOOP_S and now - self._deaths[-1] < CALM_S
