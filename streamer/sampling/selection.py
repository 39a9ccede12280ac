"""Which candidates become samples, in the order of what it costs to find out. Pure; times are given.

Spacing, uncertainty, best of the interval, duplicate, budget. Frames that a person reported,
and the random ones, pass everything but the budget.
"""

from __future__ import annotations

import math
import random
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from streamer.sampling.balance import Balance
from streamer.sampling.budget import Budget
from streamer.sampling.candidate import Candidate
from streamer.sampling.disagreement import disagreement
from streamer.sampling.fingerprint import DUPLICATE_BITS, Remembered
from streamer.sampling.flicker import flicker
from streamer.sampling.policy import Policy
from streamer.sampling.sampler import over
from streamer.sampling.uncertainty import confidence_doubt

#: Streams that are remembered; the one unheard for longest gives way, and what it holds is taken.
MAX_STREAMS = 1000
#: Pictures held until their interval ends; beyond, the interval of the oldest ends early.
MAX_HELD_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class Choice:
    """A candidate that becomes a sample, and why."""

    candidate: Candidate
    #: All that apply, the first one counts in the metrics: user, random, drift, else the greatest component.
    reasons: tuple[str, ...]
    #: Uncertainty by kind, each in [0, 1]; and what the candidates of an interval are ranked by.
    components: dict[str, float]
    rank: float
    fingerprint: int
    #: Chance with which the random draw took this frame; None for all other reasons.
    probability: float | None = None

    @property
    def uncertainty(self) -> float:
        """The greatest of the components."""
        return max(self.components.values(), default=0.0)


@dataclass(slots=True)
class _Stream:
    """What is remembered of one stream; times are monotonic seconds but for ``taken_capture``."""

    heard_at: float
    remembered: Remembered = field(default_factory=Remembered)
    #: Capture time of the last sample, unix seconds.
    taken_capture: float = -math.inf
    #: The best candidate of the interval that began at ``held_since``.
    held: Choice | None = None
    held_since: float = 0.0


class Selection:
    """``consider()`` every candidate, call ``due()`` once a second and ``flush()`` at the end."""

    def __init__(
        self,
        policy: Policy,
        rng: random.Random,
        encoded: Callable[[Candidate], Candidate] = lambda candidate: candidate,
    ) -> None:
        self._policy = policy
        self._rng = rng
        #: Makes a picture small that came as pixels; for those alone that are held or taken.
        self._encoded = encoded
        self._budget = Budget(
            stream_per_hour=policy.stream_per_hour,
            per_hour=policy.per_hour,
            per_day=policy.per_day,
            day_bytes=policy.day_bytes,
        )
        self._streams: OrderedDict[str, _Stream] = OrderedDict()
        self._balances: dict[str, Balance] = {}
        self._held_bytes = 0
        #: Candidates worth taking that were not, by reason: duplicate, budget. Only ever grows.
        self.passed_over: Counter[str] = Counter()

    def consider(
        self, candidate: Candidate, now: float, look: Callable[[], int], *, drifting: bool = False
    ) -> list[Choice]:
        """Return what is to be stored now. ``look`` decodes the picture and returns its fingerprint.

        ``drifting``: the stream no longer looks like its reference, which is a reason of its own.
        """
        name = candidate.origin.stream
        stream, taken = self._stream(name, now)
        quiet_s, stream.heard_at = max(0.0, now - stream.heard_at), now
        components, rank = self._doubts(candidate)
        reasons = sorted(
            (kind for kind, value in components.items() if value >= self._policy.threshold),
            key=lambda kind: -components[kind],
        )
        if drifting:
            reasons.insert(0, "drift")
        if candidate.reported:
            choice = Choice(candidate, ("user", *reasons), components, rank, look())
            return taken + self._take(stream, choice, now)
        chance = self._random_chance(quiet_s)
        if self._rng.random() < chance:
            choice = Choice(candidate, ("random", *reasons), components, rank, look(), chance)
            return taken + self._take(stream, choice, now)
        if candidate.captured_at - stream.taken_capture < self._policy.spacing_s or not reasons:
            return taken
        rank *= self._balance(candidate).weight(_classes(candidate))
        if stream.held is not None and rank <= stream.held.rank:
            return taken
        fingerprint = look()
        if stream.remembered.nearest_bits(fingerprint) <= DUPLICATE_BITS:
            self.passed_over["duplicate"] += 1
            return taken
        self._hold(stream, Choice(candidate, tuple(reasons), components, rank, fingerprint), now)
        return taken + self._relieve(now)

    def due(self, now: float) -> list[Choice]:
        """Return the best candidates of the intervals that have ended."""
        return [
            choice
            for stream in self._streams.values()
            if stream.held is not None and now - stream.held_since >= self._policy.interval_s
            for choice in self._release(stream, now)
        ]

    def flush(self, now: float) -> list[Choice]:
        """Return all that is held: the observer ends."""
        return [choice for stream in self._streams.values() for choice in self._release(stream, now)]

    # -- one stream ----------------------------------------------------------------------------------

    def _stream(self, name: str, now: float) -> tuple[_Stream, list[Choice]]:
        """Return what is known of the stream, and what another one held that had to give way."""
        stream = self._streams.get(name)
        taken: list[Choice] = []
        if stream is None:
            stream = self._streams[name] = _Stream(heard_at=now)
            if len(self._streams) > MAX_STREAMS:
                _, oldest = self._streams.popitem(last=False)
                taken = self._release(oldest, now)
        self._streams.move_to_end(name)
        return stream, taken

    def _doubts(self, candidate: Candidate) -> tuple[dict[str, float], float]:
        doubt, rank = confidence_doubt(candidate.boxes, candidate.threshold)
        components = {"uncertainty": doubt}
        if candidate.before is not None and candidate.after is not None:
            middle = over(candidate.boxes, candidate.threshold)
            components["flicker"] = flicker(candidate.before, middle, candidate.after)
            rank = max(rank, components["flicker"])
        if candidate.rival is not None:
            components["disagreement"] = disagreement(candidate.boxes, candidate.rival.boxes)
            rank = max(rank, components["disagreement"])
        return components, rank

    def _random_chance(self, quiet_s: float) -> float:
        """Return the chance that makes one random frame per ``random_every_s``, however often frames come."""
        if not self._policy.random_every_s:
            return 0.0
        return 1 - math.exp(-quiet_s / self._policy.random_every_s)

    def _hold(self, stream: _Stream, choice: Choice, now: float) -> None:
        choice = self._small(choice)
        if stream.held is None:
            stream.held_since = now
        else:
            self._held_bytes -= stream.held.candidate.size_bytes
        stream.held = choice
        self._held_bytes += choice.candidate.size_bytes

    def _small(self, choice: Choice) -> Choice:
        candidate = self._encoded(choice.candidate)
        return choice if candidate is choice.candidate else replace(choice, candidate=candidate)

    def _relieve(self, now: float) -> list[Choice]:
        """End intervals early, the oldest first, until what is held fits its bound."""
        taken: list[Choice] = []
        while self._held_bytes > MAX_HELD_BYTES:
            oldest = min(
                (stream for stream in self._streams.values() if stream.held is not None),
                key=lambda stream: stream.held_since,
            )
            taken += self._release(oldest, now)
        return taken

    def _release(self, stream: _Stream, now: float) -> list[Choice]:
        choice, stream.held = stream.held, None
        if choice is None:
            return []
        self._held_bytes -= choice.candidate.size_bytes
        return self._take(stream, choice, now)

    def _take(self, stream: _Stream, choice: Choice, now: float) -> list[Choice]:
        """Return the choice if the budgets allow it; what was taken is remembered."""
        choice = self._small(choice)
        candidate = choice.candidate
        size = candidate.size_bytes
        if not self._budget.take(candidate.origin.stream, size, now, candidate.captured_at):
            self.passed_over["budget"] += 1
            return []
        stream.remembered.add(choice.fingerprint)
        stream.taken_capture = max(stream.taken_capture, candidate.captured_at)
        self._balance(candidate).take(_classes(candidate))
        return [choice]

    def _balance(self, candidate: Candidate) -> Balance:
        # By version: at most two.
        return self._balances.setdefault(candidate.origin.version, Balance())


def _classes(candidate: Candidate) -> list[int]:
    return [int(number) for number in candidate.boxes[:, 5]]
