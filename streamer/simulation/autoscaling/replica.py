"""One replica in the simulation: its life, its streams, and whom it refuses."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from streamer.scheduling.fair_rates import water_level
from streamer.simulation.autoscaling.hpa import Phase

#: Last part of a cold start, in which the container runs but is not ready; before that, the pod is pending.
_LOADING_S = 6.0
#: A refused client returns after this time, so one client that waits causes one refusal in this time.
RETRY_S = 5.0
#: Time over which refusals are counted for the load.
REFUSED_WINDOW_S = 120.0


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
    #: Times and rates of refused streams.
    _refused: deque[tuple[float, float]] = field(default_factory=deque)

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
        self._refused.append((now, fps))

    def load_percent(self, now: float) -> float:
        """Return what is asked of it, in percent of its capacity: open streams, and those that it refuses."""
        while self._refused and self._refused[0][0] <= now - REFUSED_WINDOW_S:
            self._refused.popleft()
        waiting_fps = sum(fps for _, fps in self._refused) * RETRY_S / REFUSED_WINDOW_S
        return 100 * (self.demand_fps + waiting_fps) / self.capacity_fps

    def limited_streams(self) -> int:
        """Return how many of its streams get less than they ask for."""
        if self.demand_fps <= self.capacity_fps * (1 + 1e-9):
            return 0
        level = water_level(list(self.streams.values()), self.capacity_fps)
        return sum(fps > level for fps in self.streams.values())
