"""Draws random samples at a fixed rate for each stream, with a probability that is known exactly. Pure.

Each candidate stands for the time since the previous candidate of its stream, and is drawn with the
probability ``p = f * time / every_s``, at most 1. What exceeds 1, after a pause of the stream, is added to
the probabilities of the next candidates, so that a stream with pauses has its samples, too.

The draws of a stream are not independent: Chromy's sequential method (J. R. Chromy, Sequential sample
selection methods, American Statistical Association, 1979) keeps the number of drawn candidates within one of
the sum of their probabilities at any time, while each candidate has exactly its own probability. Independent
draws would give 200 samples in 100 hours with a standard deviation of 14.

``f`` is below 1 only while the candidates are so many or so large that more than ``day_bytes`` would be drawn
per day. It depends on all candidates and not on which of them were drawn, so the probabilities stay exact.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Number of streams that are remembered. Beyond it, the stream whose last candidate is the oldest is
#: forgotten: the time until its next candidate then belongs to no candidate.
MAX_STREAMS = 10_000
#: A candidate that is older by more than this many seconds than the one before it means that the clock was
#: set back. Candidates of several workers overtake each other by less.
CLOCK_STEP_S = 60.0
#: Largest sum of probabilities that a pause leaves to the next candidates, and the time in which all but 1/e
#: of it is added to theirs.
MAX_ARREARS = 4.0
ARREARS_S = 300.0
#: Seconds in which the weight of earlier candidates in the expected bytes per hour falls to 1/e.
MEMORY_S = 3600.0


@dataclass(slots=True)
class _StreamState:
    """Holds the state of one stream."""

    #: Capture time of its last candidate, unix seconds.
    last_at: float
    #: Sum of the probabilities so far, without its whole part.
    fraction: float = 0.0
    #: Whether one candidate more than the whole part of that sum was drawn.
    ahead: bool = False
    #: Sum of probabilities that a pause has left to the next candidates.
    arrears: float = 0.0


class RandomSchedule:
    """Draws the random samples of all streams."""

    def __init__(self, every_s: float, day_bytes: int, rng: random.Random) -> None:
        """Draw one candidate of each stream in ``every_s``; 0 draws none."""
        self._every_s = every_s
        self._hour_bytes = day_bytes / 24
        self._rng = rng
        self._streams: OrderedDict[str, _StreamState] = OrderedDict()
        #: Bytes per hour that would be drawn with f = 1, and the time for which this is true (unix seconds).
        self._expected_bytes = 0.0
        self._expected_at = -math.inf

    def draw(self, stream: str, at: float, size_bytes: float) -> tuple[bool, float]:
        """Return whether a candidate captured ``at`` (unix seconds) is drawn, and with which probability.

        ``size_bytes`` is about what its sample would occupy.
        """
        state = self._streams.get(stream)
        if state is None:
            state = self._streams[stream] = _StreamState(at)
            if len(self._streams) > MAX_STREAMS:
                self._streams.popitem(last=False)
        self._streams.move_to_end(stream)
        gap_s = max(0.0, at - state.last_at)
        if at > state.last_at or at < state.last_at - CLOCK_STEP_S:
            state.last_at = at
        if not self._every_s:
            return False, 0.0
        wanted = self._wanted(state, gap_s)
        probability = wanted * self._thinning(at, wanted * size_bytes)
        return self._select(state, probability), probability

    def _wanted(self, state: _StreamState, gap_s: float) -> float:
        """Return the probability of a candidate without a limit of bytes."""
        share = gap_s / self._every_s
        wanted = min(1.0, share)
        state.arrears = min(MAX_ARREARS, state.arrears + share - wanted)
        added = min(1 - wanted, state.arrears * -math.expm1(-gap_s / ARREARS_S))
        state.arrears -= added
        return wanted + added

    def _thinning(self, at: float, added_bytes: float) -> float:
        if at > self._expected_at or at < self._expected_at - CLOCK_STEP_S:
            self._expected_bytes *= math.exp(min(0.0, self._expected_at - at) / MEMORY_S)
            self._expected_at = at
        self._expected_bytes += added_bytes
        return min(1.0, self._hour_bytes / self._expected_bytes) if self._expected_bytes else 1.0

    def _select(self, state: _StreamState, probability: float) -> bool:
        """Apply Chromy's rule, which needs only the two numbers of the state."""
        if probability >= 1:
            return True
        total = state.fraction + probability
        if total < 1:
            drawn = not state.ahead and self._rng.random() < probability / (1 - state.fraction)
            state.ahead |= drawn
        else:
            total -= 1
            drawn = not state.ahead or self._rng.random() < total / state.fraction
            state.ahead &= drawn
        state.fraction = total
        return drawn

    # -- state that outlives the process -------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the state in types of msgpack, for :meth:`restore`."""
        return {
            # The time is infinite as long as no random samples are wanted.
            "expected": [self._expected_bytes, self._expected_at if self._expected_at > -math.inf else 0.0],
            "streams": {
                name: [s.last_at, s.fraction, s.ahead, s.arrears] for name, s in self._streams.items()
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state. Raises KeyError, TypeError or ValueError if it is none."""
        streams: OrderedDict[str, _StreamState] = OrderedDict()
        for name, (last_at, fraction, ahead, arrears) in state["streams"].items():
            if not (math.isfinite(last_at) and 0 <= fraction < 1 and 0 <= arrears <= MAX_ARREARS):
                raise ValueError(f"stream {name!r} has the state {last_at}, {fraction}, {arrears}")
            streams[str(name)] = _StreamState(float(last_at), float(fraction), bool(ahead), float(arrears))
        expected_bytes, expected_at = (float(value) for value in state["expected"])
        if not (math.isfinite(expected_bytes) and math.isfinite(expected_at)):
            raise ValueError(f"expected bytes are {expected_bytes} at {expected_at}")
        self._streams, self._expected_bytes, self._expected_at = streams, expected_bytes, expected_at
