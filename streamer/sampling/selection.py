"""Decides which candidates become samples. Pure; the caller passes times in.

Cheap rules come first. The order is: spacing, uncertainty, best of the interval, duplicates, budget.
Random samples skip all rules: `random_schedule` draws them. Reports skip all rules but their own budget.
"""

from __future__ import annotations

import math
import random
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from streamer.sampling.appearance import Appearance
from streamer.sampling.appearance_memory import RADIUS, AppearanceMemories
from streamer.sampling.candidate import PIXELS, SampleCandidate
from streamer.sampling.informativeness import ClassBalance, disagreement, flicker, uncertainty
from streamer.sampling.policy import Budget, Policy, ReportBudget
from streamer.sampling.random_schedule import RandomSchedule
from streamer.sampling.sampler import boxes_above

#: Number of streams that are remembered. Beyond it, the stream whose last frame is the oldest is forgotten,
#: and its held candidate is taken.
MAX_STREAMS = 1000
#: Limit of all images that are held until their interval ends. Beyond it, the oldest interval ends early.
MAX_HELD_BYTES = 32 << 20
#: Bytes of pixels of a video frame for one byte of the JPEG in which it is stored, roughly.
PIXEL_BYTES_PER_STORED_BYTE = 8


@dataclass(frozen=True, slots=True)
class Choice:
    """Holds a candidate that may become a sample, and the reasons for it."""

    candidate: SampleCandidate
    #: All reasons that apply, in this order: user, random, drift, then the components from the highest value
    #: on. Metrics count only the first.
    reasons: tuple[str, ...]
    #: Uncertainty, flicker and disagreement, each in [0, 1].
    components: dict[str, float]
    #: The candidate with the highest rank in its interval is taken.
    rank: float
    appearance: Appearance
    #: Distance in levels from what earlier samples of the stream show; infinity for the first one.
    novelty: float = math.inf
    #: Probability with which a random sample was drawn; None for all others.
    probability: float | None = None

    @property
    def is_unconditional(self) -> bool:
        """Whether the sample is kept even if the same image was kept before: a random one, or a report."""
        return self.reasons[0] in ("random", "user")

    @property
    def uncertainty(self) -> float:
        """The greatest of the components."""
        return max(self.components.values(), default=0.0)


@dataclass(slots=True)
class _StreamState:
    """Holds the state of one stream; times are monotonic seconds except ``last_sample_at``."""

    #: Capture time of the last sample, unix seconds.
    last_sample_at: float = -math.inf
    #: The best candidate of the interval that began at ``held_since``.
    held: Choice | None = None
    held_since: float = 0.0


class Selection:
    """Applies the rules to all candidates.

    Call ``consider()`` with every candidate, ``due()`` once a second, and ``flush()`` at the end.
    """

    def __init__(
        self,
        policy: Policy,
        rng: random.Random,
        encoded: Callable[[SampleCandidate], SampleCandidate] = lambda candidate: candidate,
    ) -> None:
        self._policy = policy
        #: Encodes pixels to reduce their size; called only for candidates that are held or taken.
        self._encoded = encoded
        self._budget = Budget(policy)
        self.report_budget = ReportBudget(policy)
        self._schedule = RandomSchedule(policy.random_every_s, policy.random_day_bytes, rng)
        self._streams: OrderedDict[str, _StreamState] = OrderedDict()
        #: How the samples of each stream look.
        self.memories = AppearanceMemories()
        self._balances: dict[str, ClassBalance] = {}
        self._held_bytes = 0
        #: Candidates that were worth taking but dropped, by reason (duplicate, budget, report_budget). Counts
        #: only increase.
        self.dropped: Counter[str] = Counter()

    def consider(
        self,
        candidate: SampleCandidate,
        now: float,
        get_appearance: Callable[[], Appearance],
        *,
        drifting: bool = False,
    ) -> list[Choice]:
        """Return the candidates to store now. ``get_appearance`` decodes the image, which is expensive.

        ``drifting`` says that the stream no longer looks like its reference, which is one more reason.
        """
        name = candidate.stream.name
        stream, taken = self._stream(name, now)
        components, rank = self._components(candidate)
        reasons = sorted(
            (kind for kind, value in components.items() if value >= self._policy.threshold),
            key=lambda kind: -components[kind],
        )
        if drifting:
            reasons.insert(0, "drift")
        if candidate.reported:
            choice = self._choice(candidate, ("user", *reasons), components, rank, get_appearance())
            return taken + self._take_report(stream, choice, now)
        drawn, probability = self._schedule.draw(name, candidate.captured_at, _stored_bytes(candidate))
        if drawn:
            reasons.insert(0, "random")
            choice = self._choice(candidate, tuple(reasons), components, rank, get_appearance())
            choice = replace(choice, probability=probability)
            return [*taken, self._remember(stream, self._with_encoded_image(choice))]
        if candidate.captured_at - stream.last_sample_at < self._policy.spacing_s or not reasons:
            return taken
        weight = self._balance(candidate).weight(_classes(candidate))
        rank *= weight
        if stream.held is not None and rank <= stream.held.rank:
            return taken
        choice = self._choice(candidate, tuple(reasons), components, rank, get_appearance())
        # A frame with a rare class needs to be less different from earlier ones.
        if choice.novelty <= RADIUS / max(1.0, weight):
            self.dropped["duplicate"] += 1
            return taken
        self._hold(stream, choice, now)
        return taken + self._end_intervals_early(now)

    def due(self, now: float) -> list[Choice]:
        """Return the best candidates of the intervals that have ended."""
        return [
            choice
            for stream in self._streams.values()
            if stream.held is not None and now - stream.held_since >= self._policy.interval_s
            for choice in self._release(stream, now)
        ]

    def flush(self, now: float) -> list[Choice]:
        """Return all held candidates, before the process ends."""
        return [choice for stream in self._streams.values() for choice in self._release(stream, now)]

    # -- one stream ----------------------------------------------------------------------------------

    def _stream(self, name: str, now: float) -> tuple[_StreamState, list[Choice]]:
        """Return the state of a stream, and what is taken of a stream that was forgotten to make room."""
        stream = self._streams.get(name)
        taken: list[Choice] = []
        if stream is None:
            stream = self._streams[name] = _StreamState()
            if len(self._streams) > MAX_STREAMS:
                _, oldest = self._streams.popitem(last=False)
                taken = self._release(oldest, now)
        self._streams.move_to_end(name)
        return stream, taken

    def _components(self, candidate: SampleCandidate) -> tuple[dict[str, float], float]:
        greatest, rank = uncertainty(candidate.boxes, candidate.threshold)
        components = {"uncertainty": greatest}
        if candidate.before is not None and candidate.after is not None:
            middle = boxes_above(candidate.boxes, candidate.threshold)
            components["flicker"] = flicker(candidate.before, middle, candidate.after)
            rank = max(rank, components["flicker"])
        if candidate.shadow is not None:
            components["disagreement"] = disagreement(candidate.boxes, candidate.shadow.boxes)
            rank = max(rank, components["disagreement"])
        return components, rank

    def _choice(
        self,
        candidate: SampleCandidate,
        reasons: tuple[str, ...],
        components: dict[str, float],
        rank: float,
        appearance: Appearance,
    ) -> Choice:
        """Return a choice with the novelty of its objects, and of the frame if it has none or drifts."""
        novelty = self.memories.novelty(candidate.stream.name, appearance, whole="drift" in reasons)
        return Choice(candidate, reasons, components, rank, appearance, novelty)

    def _hold(self, stream: _StreamState, choice: Choice, now: float) -> None:
        choice = self._with_encoded_image(choice)
        if stream.held is None:
            stream.held_since = now
        else:
            self._held_bytes -= stream.held.candidate.size_bytes
        stream.held = choice
        self._held_bytes += choice.candidate.size_bytes

    def _with_encoded_image(self, choice: Choice) -> Choice:
        candidate = self._encoded(choice.candidate)
        return choice if candidate is choice.candidate else replace(choice, candidate=candidate)

    def _end_intervals_early(self, now: float) -> list[Choice]:
        """End intervals, the oldest first, until the held images fit their limit."""
        taken: list[Choice] = []
        while self._held_bytes > MAX_HELD_BYTES:
            oldest = min(
                (stream for stream in self._streams.values() if stream.held is not None),
                key=lambda stream: stream.held_since,
            )
            taken += self._release(oldest, now)
        return taken

    def _release(self, stream: _StreamState, now: float) -> list[Choice]:
        choice, stream.held = stream.held, None
        if choice is None:
            return []
        self._held_bytes -= choice.candidate.size_bytes
        return self._take(stream, choice, now)

    def _take(self, stream: _StreamState, choice: Choice, now: float) -> list[Choice]:
        """Return the choice and remember it if the budgets allow it; else return an empty list."""
        choice = self._with_encoded_image(choice)
        candidate = choice.candidate
        if not self._budget.take(candidate.stream.name, candidate.size_bytes, now, candidate.captured_at):
            self.dropped["budget"] += 1
            return []
        return [self._remember(stream, choice)]

    def _take_report(self, stream: _StreamState, choice: Choice, now: float) -> list[Choice]:
        choice = self._with_encoded_image(choice)
        candidate = choice.candidate
        name, size = candidate.stream.name, candidate.size_bytes
        if self.report_budget.wait_s(name, size, now, candidate.captured_at):
            self.dropped["report_budget"] += 1
            return []
        self.report_budget.charge(name, size, now)
        return [self._remember(stream, choice)]

    def _remember(self, stream: _StreamState, choice: Choice) -> Choice:
        candidate, appearance = choice.candidate, choice.appearance
        self.memories.add(candidate.stream.name, appearance)
        stream.last_sample_at = max(stream.last_sample_at, candidate.captured_at)
        self._balance(candidate).count(_classes(candidate))
        return choice

    # -- state that outlives the process -------------------------------------------------------------------

    def state(self, now: float, unix_s: float) -> dict[str, Any]:
        """Return what must outlive the process, in types of msgpack, for :meth:`restore`."""
        return {
            "random": self._schedule.state(),
            "budget": self._budget.state(now, unix_s),
            "reports": self.report_budget.state(now, unix_s),
            "classes": {version: balance.state() for version, balance in self._balances.items()},
        }

    def restore(self, state: Mapping[str, Any], now: float, unix_s: float) -> None:
        """Continue from a state. Raises KeyError, TypeError or ValueError if it is none."""
        self._schedule.restore(state["random"])
        self._budget.restore(state["budget"], now, unix_s)
        # Files of earlier versions have neither of these.
        if "reports" in state:
            self.report_budget.restore(state["reports"], now, unix_s)
        for version, counts in state.get("classes", {}).items():
            self._balances.setdefault(str(version), ClassBalance()).restore(counts)

    def _balance(self, candidate: SampleCandidate) -> ClassBalance:
        # Each model version has its own balance; there are at most two versions.
        return self._balances.setdefault(candidate.stream.version, ClassBalance())


def _stored_bytes(candidate: SampleCandidate) -> float:
    pixels = candidate.source == PIXELS
    return candidate.size_bytes / (PIXEL_BYTES_PER_STORED_BYTE if pixels else 1)


def _classes(candidate: SampleCandidate) -> list[int]:
    return [int(number) for number in candidate.boxes[:, 5]]
