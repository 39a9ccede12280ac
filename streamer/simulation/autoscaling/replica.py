"""One replica in the simulation: its life, its streams, and whom it refuses."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from streamer.scheduling.fair_rates import water_level
from streamer.scheduling.load_counters import RETURN_S
from streamer.simulation.autoscaling.hpa import Phase

#: Last part of a cold start, in which the container runs but is not ready; before that, the pod is pending.
_LOADING_S = 6.0
#: Time constant with which the service averages refusals (`streamer/scheduling/load_counters.py`).
_AVERAGED_S = 15.0


@dataclass(slots=True, eq=False)
class Replica:
    """Holds the state of a pod. Times are seconds, rates frames per second."""

    number: int
    created_at: float
    ready_at: float
    capacity_fps: float
    min_fps: float
    #: Rate for which each of its streams asks, by the number of the stream, oldest first.
    streams: dict[int, float] = field(default_factory=dict)
    demand_fps: float = 0.0
    #: What its streams need at least.
    floor_fps: float = 0.0
    draining: bool = False
    #: When its node died; the pod stays on the list of Kubernetes until it is evicted. None while it lives.
    died_at: float | None = None
    #: Frames per second of refused streams, per second of refusals, at the time beside it.
    _refused_fps: float = 0.0
    _refused_at: float = 0.0

    @property
    def load(self) -> float:
        """What its streams ask for, of its capacity; 1 is full."""
        return self.demand_fps / self.capacity_fps

    def is_ready(self, now: float) -> bool:
        """Return whether new streams reach it."""
        return now >= self.ready_at and not self.draining and self.died_at is None

    def phase(self, now: float) -> Phase:
        """Return what Kubernetes says about the pod."""
        if self.draining:
            return Phase.DELETED
        return Phase.PENDING if now < self.ready_at - _LOADING_S else Phase.RUNNING

    def admits(self) -> bool:
        """Return whether one more stream would get the least rate (`streamer/scheduling/admission.py`)."""
        return self.floor_fps + self.min_fps <= self.capacity_fps

    def add(self, stream: int, fps: float) -> None:
        """Serve a stream that asks for ``fps``."""
        self.streams[stream] = fps
        self.demand_fps += fps
        self.floor_fps += min(fps, self.min_fps)

    def remove(self, stream: int) -> None:
        """Forget a stream."""
        fps = self.streams.pop(stream)
        self.demand_fps -= fps
        self.floor_fps -= min(fps, self.min_fps)

    def refuse(self, now: float, fps: float) -> None:
        """Count a refused stream."""
        self._refused_fps = self._refused_until(now) + fps / _AVERAGED_S
        self._refused_at = now

    def load_percent(self, now: float) -> float:
        """Return what is asked of it, in percent of its capacity: open streams, and those that it refuses."""
        return 100 * (self.demand_fps + RETURN_S * self._refused_until(now)) / self.capacity_fps

    def _refused_until(self, now: float) -> float:
        return self._refused_fps * math.exp((self._refused_at - now) / _AVERAGED_S)

    def limited_streams(self) -> int:
        """Return how many of its streams get less than they ask for."""
        if self.demand_fps <= self.capacity_fps * (1 + 1e-9):
            return 0
        level = water_level(list(self.streams.values()), self.capacity_fps)
        return sum(fps > level for fps in self.streams.values())
