"""Runs a drift detector on simulated worlds: days without a fault, and each kind of fault.

Time is simulated. The detector lives through the days after its reference once. At the time of each fault its
state is copied, and the copy sees what the camera would have sent with the fault. So a fault meets a detector
that has been running for days, and each difference from the days without a fault is the fault's.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from streamer.drift.monitor import DriftConfig, Monitor
from streamer.drift.reference import Reference, learn
from tests.helpers.drift_clips import CLIPS, record_clip
from tests.helpers.drift_faults import KINDS, record_world
from tests.helpers.drift_gaussian import GAUSSIANS, record_gaussian
from tests.helpers.drift_series import DAY_S, HOUR_S, Series
from tests.helpers.drift_worlds import REFERENCE_DAYS, WORLDS

STREAM = "gate"
#: A fault counts as found if an episode begins within this time.
FOUND_WITHIN_S = 24 * HOUR_S
#: Faults begin at least this long after the reference, and this long before the last simulated day ends.
MARGIN_S = 1.25 * DAY_S


class Recording(Protocol):
    """What a trial needs of a simulated camera."""

    @property
    def now(self) -> float:
        """When the reference ends, unix seconds."""
        ...

    @property
    def end(self) -> float:
        """When the recording ends, unix seconds."""
        ...

    @property
    def series(self) -> Series:
        """All rows without a fault."""
        ...

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of faults that it knows."""
        ...

    def faulty(self, kind: str, begin: float, end: float, seed: int) -> Series:
        """Return the rows of that time with a fault that began at ``begin``."""
        ...


class Detector(Protocol):
    """What a trial needs of a detector of one stream."""

    @property
    def drifting(self) -> bool:
        """Whether an episode is on."""
        ...

    def feed(self, series: Series) -> Iterator[float]:
        """Take further rows; yield the time of each beginning of an episode as soon as it begins."""
        ...

    def copy(self) -> Detector:
        """Return a detector in the same state."""
        ...


@dataclass(frozen=True, slots=True)
class Opinion:
    """Holds what the service said of a fault when it found it."""

    #: `sudden`, `gradual`, or empty if that could not be told.
    kind: str
    severity: str


#: Makes a detector from the rows of its reference.
Learn = Callable[[Series], Detector]


class ServiceDetector:
    """Drives the service's own monitor as the sampling process does, with its builtin engine."""

    def __init__(self, reference: Series, config: DriftConfig | None = None) -> None:
        config = config or DriftConfig()
        learned, _ = learn(list(reference.rows(STREAM)), config.window_s, config.alpha)
        self._monitor = Monitor(config)
        self._monitor.set_reference(Reference({STREAM: learned}, "", ""))

    @property
    def drifting(self) -> bool:
        """Whether an episode is on."""
        return bool(self._monitor.drifting)

    def feed(self, series: Series) -> Iterator[float]:
        """Add the rows."""
        for row in series.rows(STREAM):
            for check in self._monitor.add(row):
                if self._monitor.settle(check):
                    yield check.window.end

    @property
    def opinion(self) -> Opinion:
        """How the present episode began, and how severe it has been, as the status says."""
        episode = self._monitor.groups[STREAM].episode
        return Opinion(episode.onset.kind if episode.onset is not None else "", episode.severity)

    def copy(self) -> ServiceDetector:
        """Return a copy of the monitor; the reference, which never changes, is shared."""
        reference = self._monitor.reference
        twin = object.__new__(ServiceDetector)
        twin._monitor = copy.deepcopy(self._monitor, {id(reference): reference})
        return twin


@dataclass(frozen=True, slots=True)
class Trial:
    """Says what to simulate: a world, hours of reference, days without a fault after it, and a seed."""

    #: One of ``WORLDS``, ``GAUSSIANS`` or ``CLIPS``.
    world: str
    reference_h: float
    days: float
    seed: int
    #: Kinds of faults; None: all that the world knows.
    kinds: tuple[str, ...] | None = None
    #: Days before the end of the reference that are drawn; with the same number, references of different
    #: lengths end with the same rows.
    reference_days: float = REFERENCE_DAYS


@dataclass(slots=True)
class Outcome:
    """Holds what a detector did in a trial."""

    days: float
    #: Beginnings of false episodes, seconds after the reference.
    false: list[float]
    #: Share of the hours without a fault at whose end an episode was on.
    drifting: float
    #: By kind of fault: seconds until it was found; infinite if it was not within a day; NaN if an episode
    #: was on already when it began.
    delays: dict[str, float] = field(default_factory=dict)
    #: What the service said of the faults that it found.
    opinions: dict[str, Opinion] = field(default_factory=dict)


def hours_of_reference(world: str, hours: float) -> float:
    """Return the length of the reference in this world, which may limit it."""
    limit = WORLDS[world].max_reference_h if world in WORLDS else None
    return min(hours, limit or math.inf)


@functools.lru_cache(maxsize=1)
def _record(world: str, seed: int, days: float, reference_days: float) -> Recording:
    """Return a recording; trials that differ in the reference alone share it."""
    if world in CLIPS:
        return record_clip(world, seed, days, reference_days)
    draw = record_gaussian if world in GAUSSIANS else record_world
    return draw(world, seed, days, reference_days)


def recording_of(trial: Trial) -> Recording:
    """Return the recording of a trial."""
    return _record(trial.world, trial.seed, trial.days, trial.reference_days)


def run(trial: Trial, make: Learn = ServiceDetector) -> Outcome:
    """Run a trial with the detector that ``make`` returns."""
    recording = recording_of(trial)
    series, now = recording.series, recording.now
    hours = hours_of_reference(trial.world, trial.reference_h)
    detector = make(series.between(now - hours * HOUR_S, now))
    faults = faults_of(trial, recording)
    outcome = Outcome(trial.days, [], 0.0)
    marks = [now + hour * HOUR_S for hour in range(1, math.ceil(trial.days * 24) + 1)]
    begin, on = now, 0
    for end in sorted([*marks, *faults]):
        outcome.false += [at - now for at in detector.feed(series.between(begin, end))]
        if end in faults:
            outcome.delays[faults[end]], opinion = _find(detector, trial, faults[end], end)
            if opinion is not None:
                outcome.opinions[faults[end]] = opinion
        else:
            on += detector.drifting
        begin = end
    outcome.drifting = on / len(marks)
    return outcome


def faults_of(trial: Trial, recording: Recording) -> dict[float, str]:
    """Return the time of the first row of each fault, with its kind."""
    rng = np.random.default_rng((trial.seed, 0xFA17))
    kinds = recording.kinds if trial.kinds is None else trial.kinds
    if not kinds:
        return {}
    possible = recording.series.between(recording.now + MARGIN_S, recording.end - MARGIN_S).at
    # Drawn for all kinds, so that a fault begins at the same time whichever others are simulated.
    drawn = rng.choice(len(possible), len(recording.kinds), replace=False)
    return {
        float(possible[place]): kind
        for kind, place in zip(recording.kinds, drawn, strict=True)
        if kind in kinds
    }


def _find(detector: Detector, trial: Trial, kind: str, begin: float) -> tuple[float, Opinion | None]:
    """Return the delay of a fault as in :class:`Outcome`, and what the service said of it."""
    if detector.drifting:
        return math.nan, None
    twin = detector.copy()
    for at in twin.feed(faulty_series(trial, kind, begin)):
        return at - begin, twin.opinion if isinstance(twin, ServiceDetector) else None
    return math.inf, None


def faulty_series(trial: Trial, kind: str, begin: float) -> Series:
    """Return a day of a trial with a fault."""
    return _faulty(trial.world, trial.seed, trial.days, trial.reference_days, kind, begin)


@functools.lru_cache(maxsize=len(KINDS))
def _faulty(world: str, seed: int, days: float, reference_days: float, kind: str, begin: float) -> Series:
    """Return a day with a fault; trials that differ in the reference alone share it."""
    recording = _record(world, seed, days, reference_days)
    return recording.faulty(kind, begin, begin + FOUND_WITHIN_S, seed)


@dataclass(slots=True)
class Summary:
    """Adds up outcomes of trials that differ in their seed alone."""

    outcomes: Sequence[Outcome]

    @property
    def days(self) -> float:
        """Stream-days without a fault."""
        return sum(outcome.days for outcome in self.outcomes)

    @property
    def false(self) -> int:
        """False episodes."""
        return sum(len(outcome.false) for outcome in self.outcomes)

    @property
    def false_per_day(self) -> float:
        """False episodes per stream-day."""
        return self.false / self.days

    @property
    def false_per_day_bound(self) -> float:
        """Upper end of the 95 % interval of the rate, if false episodes come as a Poisson process."""
        return poisson_bound(self.false) / self.days

    @property
    def drifting(self) -> float:
        """Share of the time without a fault in which an episode was on."""
        return float(np.mean([outcome.drifting for outcome in self.outcomes]))

    def found(self, kind: str) -> tuple[int, int]:
        """Return how many faults of a kind were found within a day, and of how many."""
        delays = [outcome.delays[kind] for outcome in self.outcomes if kind in outcome.delays]
        return sum(math.isfinite(delay) for delay in delays), len(delays)

    def opinions(self, kind: str) -> list[Opinion]:
        """Return what the service said of the faults of a kind that it found."""
        return [outcome.opinions[kind] for outcome in self.outcomes if kind in outcome.opinions]

    def median_delay_h(self, kind: str) -> float:
        """Return the (upper) median delay in hours; a fault that was not found has an infinite one."""
        delays = [outcome.delays[kind] for outcome in self.outcomes if kind in outcome.delays]
        known = sorted(math.inf if math.isnan(delay) else delay for delay in delays)
        return known[len(known) // 2] / HOUR_S if known else math.nan


def poisson_bound(count: int, confidence: float = 0.95) -> float:
    """Return the mean of a Poisson distribution of which ``count`` or less has the chance 1 - confidence.

    This is the exact one-sided upper limit (Garwood, Biometrika 1936), found by bisection.
    """
    low, high = float(count), count + 10.0 + 5 * math.sqrt(count + 1)
    for _ in range(60):
        middle = (low + high) / 2
        terms = [math.exp(k * math.log(middle) - middle - math.lgamma(k + 1)) for k in range(count + 1)]
        low, high = (middle, high) if sum(terms) > 1 - confidence else (low, middle)
    return high
