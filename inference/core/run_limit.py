"""Limits how long a model run may last before it counts as hung: ten times as long as recent slow runs.

The loop posts the limit in the shared status; the supervisor kills a process that exceeds it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence

#: A run counts as hung when it lasts this many times as long as slow runs.
HUNG_FACTOR = 10.0
HUNG_MIN_S = 2.0
#: Slow runs raise the limit to at most this many times the limit after the warm-up, or to `RAISED_MAX_S`.
RAISE_FACTOR_MAX = 4.0
RAISED_MAX_S = 30.0
#: The percentile covers at most `HISTORY` recent runs. Until there are `MIN_RUNS`, the limit is that of the
#: warm-up.
HISTORY = 512
MIN_RUNS = 100
#: Number of runs after which the percentile is computed again.
_EVERY = 32
_PERCENTILE = 0.99


class RunLimit:
    """Keeps the limit: from the warm-up at first, then from the 99th percentile of the served runs.

    Each duration is divided by the one that the warm-up measured for the same version and batch size, so that
    the limit also fits the largest batch when only small ones have run lately. Only one thread at a time may
    call :meth:`observe`.
    """

    def __init__(self, costs_s: Sequence[Mapping[int, float]], *, sharing: float) -> None:
        """Take the limit from ``costs_s``, which holds the seconds of a run by batch size for each version.

        ``sharing`` is the number of inference threads divided by the number of runs that the device executes
        in parallel. A run may have to wait for that many others.
        """
        self._costs_s = [dict(sorted(costs.items())) for costs in costs_s]
        self._unit_s = HUNG_FACTOR * max(max(costs.values()) for costs in self._costs_s)
        #: Seconds that the oldest run in progress may last; any thread may read it.
        self.seconds = max(HUNG_MIN_S, self._unit_s * sharing)
        self._most_s = max(RAISED_MAX_S, RAISE_FACTOR_MAX * self.seconds)
        self._slowness: deque[float] = deque(maxlen=HISTORY)
        self._unseen = 0

    def observe(self, version: int, size: int, ran_s: float) -> None:
        """Record the duration of a successful run of ``size`` frames."""
        costs = self._costs_s[version]
        expected_s = costs.get(size)
        if expected_s is None:
            expected_s = next((cost for bucket, cost in costs.items() if bucket >= size), max(costs.values()))
        self._slowness.append(ran_s / max(expected_s, 1e-6))
        self._unseen += 1
        if len(self._slowness) >= MIN_RUNS and self._unseen >= _EVERY:
            self._unseen = 0
            slow = sorted(self._slowness)[math.ceil(_PERCENTILE * len(self._slowness)) - 1]
            self.seconds = min(self._most_s, max(HUNG_MIN_S, self._unit_s * slow))
