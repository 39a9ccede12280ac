"""Times several ways of doing the same, in turns, so that a busy neighbour slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

#: Rounds that are made at least, and after which no more are.
LEAST_ROUNDS = 5
MOST_ROUNDS = 200


def time_in_turns(
    ways: Sequence[Callable[[], object]], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Return the median seconds of each way, from rounds that fill about ``seconds``.

    The first run of each, which claims memory, does not count.
    """
    times: list[list[float]] = [[] for _ in ways]
    for way in ways:
        way()
    deadline = clock() + seconds
    for round_number in range(MOST_ROUNDS):
        if round_number >= LEAST_ROUNDS and clock() >= deadline:
            break
        for index, way in enumerate(ways):
            begun = clock()
            way()
            times[index].append(clock() - begun)
    return [statistics.median(rounds) for rounds in times]
