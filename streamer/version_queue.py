"""The queues of one model version: which frame is decoded next, and what each stream may send. Pure.

The dispatcher carries out what is decided here.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from inference.client import ServedModel
from inference.stride import Stride
from inference.wire import Result
from streamer.fair_rate import FairRates, water_level
from streamer.job import Job

#: POSTs may exceed the in-flight bound by this much while live frames fill it.
RESERVED_FOR_POSTS = 1
#: Period in which the rates of streams are measured and granted.
FAIR_RATE_S = 0.5


class Source(Protocol):
    """A live stream, as the dispatcher sees it."""

    key: int
    declared_fps: float | None

    @property
    def pending(self) -> bool:
        """Whether a frame waits, startable or not."""

    def wants_turn(self, now: float) -> bool:
        """Whether a frame waits that may start now."""

    def take(self, now: float) -> Job | None:
        """Take that frame; None when all that waited was too old."""

    def grant(self, max_fps: float | None) -> None:
        """Tell the client its fair rate."""


@dataclass(slots=True)
class Demand:
    """What a stream has asked for lately."""

    arrived: int = 0
    fps: float = 0.0
    #: Its frames wait for the device, so it would take more than it sends.
    hungry: bool = False


@dataclass(slots=True)
class VersionQueue:
    """POSTs in order, live streams in turn; times are monotonic seconds."""

    posts: deque[Job] = field(default_factory=deque)
    #: Frames of streams in mode all that an inference process took with it, in order: they go first.
    returned: deque[Job] = field(default_factory=deque)
    #: Live streams with something to say, by key.
    waiting: dict[int, Source] = field(default_factory=dict)
    #: Frames in decoder threads or with the inference process.
    in_flight: int = 0
    _sources: dict[int, Source] = field(default_factory=dict)
    _demands: dict[int, Demand] = field(default_factory=dict)
    #: Key to the turn it was last served in.
    _served: dict[int, int] = field(default_factory=dict)
    _turn: int = 0
    #: Frames per second that the device does, by its latest runs; smoothed. 0 until it has run.
    _observed_fps: float = 0.0
    _classes: Stride[str] = field(default_factory=lambda: Stride({"post": 0.25, "live": 0.75}))
    _rates: FairRates[int] = field(default_factory=FairRates)

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not (self.in_flight or self.posts or self.returned or self.waiting)

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._sources)

    # -- turns ---------------------------------------------------------------------------------------

    def open(self, source: Source) -> None:
        """Register a stream."""
        self._sources[source.key] = source
        self._demands[source.key] = Demand()

    def close(self, key: int) -> None:
        """Forget a stream."""
        for table in (self._sources, self._demands, self.waiting, self._served):
            table.pop(key, None)

    def offer(self, source: Source) -> None:
        """A stream has a new frame in its mailbox."""
        demand = self._demands.get(source.key)
        if demand is not None:
            demand.arrived += 1
        self.waiting[source.key] = source

    def next(self, room: int, now: float) -> Job | None:
        """Take the frame that goes next while fewer than ``room`` are in flight; None when none may go.

        Classes share by weight; among streams the least recently served goes first.
        """
        for_live = self.in_flight < room
        if self.returned and for_live:
            return self.returned.popleft()
        while True:
            ready = [s for s in self.waiting.values() if s.wants_turn(now)] if for_live else []
            classes = ["live"] if ready else []
            if self.posts and self.in_flight < room + RESERVED_FOR_POSTS:
                classes.insert(0, "post")
            if not classes:
                return None
            choice = self._classes.pick(classes)
            job = self.posts.popleft() if choice == "post" else self._take_live(ready, now)
            if job is not None:
                self._classes.charge(choice, 1.0)
                return job

    def _take_live(self, ready: list[Source], now: float) -> Job | None:
        source = min(ready, key=lambda s: self._served.get(s.key, 0))
        job = source.take(now)
        if job is not None:  # a stream whose frames were all too old keeps its turn
            self._turn += 1
            self._served[source.key] = self._turn
        if not source.pending:
            self.waiting.pop(source.key, None)
        return job

    # -- rates ---------------------------------------------------------------------------------------

    def observe(self, model: ServedModel, stream: int, result: Result) -> None:
        """Learn from one answer how many frames per second the device does, and whether ``stream`` waits."""
        # Lanes that share a device wait for each other, which their runs include.
        fps = model.lanes * result.batch_size / max(result.inference_ms, 1e-3) * 1e3
        self._observed_fps += (fps - self._observed_fps) * (0.05 if self._observed_fps else 1.0)
        demand = self._demands.get(stream)
        if demand is not None:
            demand.hungry = result.queue_ms > max(5.0, result.inference_ms / 2)

    def capacity_fps(self, model: ServedModel) -> float:
        """Return what may be promised: a warm-up beside a busy neighbour must not throttle for good.

        The larger of both: promised too much, mailboxes drop the surplus; promised too little, the
        device idles.
        """
        return max(model.capacity_fps, self._observed_fps)

    def newcomers_share_fps(self, model: ServedModel) -> float:
        """Return what one more stream would get."""
        wanted = [self._wanted_fps(key) for key in self._sources]
        return water_level([*wanted, math.inf], self.capacity_fps(model))

    def share(self, model: ServedModel, now: float) -> None:
        """Measure what each stream has asked for in the last ``FAIR_RATE_S``, and tell changed grants."""
        for demand in self._demands.values():
            # Smoothed over about a second.
            demand.fps += 0.5 * (demand.arrived / FAIR_RATE_S - demand.fps)
            demand.arrived = 0
        capacity_fps = self.capacity_fps(model)
        overloaded = sum(demand.fps for demand in self._demands.values()) > capacity_fps
        wanted = {
            key: self._wanted_fps(key) if overloaded else demand.fps for key, demand in self._demands.items()
        }
        for key, fps in self._rates.update(wanted, capacity_fps, now).items():
            self._sources[key].grant(None if fps is None else max(1.0, round(fps, 1)))

    def _wanted_fps(self, key: int) -> float:
        """What a stream would take: its measured rate, or all it may declare when its frames wait."""
        demand = self._demands[key]
        if not demand.hungry:
            return demand.fps
        return max(demand.fps, self._sources[key].declared_fps or math.inf)
