"""What is simulated: the replicas, the streams, the autoscaler, and what goes wrong.

The command (`streamer/cli/simulate.py`) has an option for each field.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from streamer.simulation.autoscaling.behavior import CHART, Behavior
from streamer.simulation.errors import BadScenario

#: ``hpa`` and ``keda`` are what the chart creates. ``keda-value`` compares the load of the fullest replica
#: with the target, as a trigger of the type ``Value``; it is there to show why the chart does not do so.
Method = Literal["hpa", "keda", "keda-value"]
Route = Literal["random", "least"]
Remove = Literal["newest", "emptiest"]

#: Allowed range of each number, ends included.
_RANGES: dict[str, tuple[float, float]] = {
    "capacity": (1, 100_000),
    "peak": (1, 1_000_000),
    "min_fps": (0, 1000),
    "minutes": (0.5, 1440),
    "permanent": (0, 1),
    "cold_start_s": (0, 3600),
    "spares": (0, 1000),
    "warm_start_s": (0, 3600),
    "target": (1, 1000),
    "min_replicas": (1, 10_000),
    "max_replicas": (1, 10_000),
    "failures": (0, 1000),
    "outages": (0, 100),
    "affinity": (0, 1),
    "rebalance": (0, 100),
    "days": (1, 31),
}


@dataclass(frozen=True, slots=True)
class Scheduled:
    """Says that there are at least ``replicas`` between two hours of each day."""

    begin_h: float
    end_h: float
    replicas: int

    @classmethod
    def parse(cls, text: str) -> Scheduled:
        """Read ``BEGIN-END:REPLICAS``, such as ``5.5-14:10``. Raises BadScenario."""
        hours, _, replicas = text.partition(":")
        begin, _, end = hours.partition("-")
        try:
            found = cls(float(begin), float(end), int(replicas))
        except ValueError:
            found = cls(0, 0, 0)
        if not (0 <= found.begin_h < found.end_h <= 24 and 1 <= found.replicas <= 10_000):
            raise BadScenario(
                f"--schedule: expected BEGIN-END:REPLICAS with hours from 0 to 24, such as 5.5-14:10; "
                f"found {text!r}"
            )
        return found


@dataclass(frozen=True, slots=True)
class Scenario:
    """Describes one simulated release."""

    #: Name of a day, or the path of a CSV file (`days`).
    day: str = "weekday"
    days: int = 1
    seed: int = 0
    #: Streams that one replica serves at the rate for which they ask.
    capacity: float = 32
    #: Expected number of streams at the highest point of the day; 0: ten times ``capacity``.
    peak: float = 0
    #: Rates for which streams ask, each equally often, and the rate below which a new stream is refused
    #: (``STREAM_MIN_FPS``).
    fps: tuple[float, ...] = (10,)
    min_fps: float = 5
    #: Mean time for which a viewer's stream stays, and share of cameras, which stay all day, at the peak.
    minutes: float = 30
    permanent: float = 0.1
    #: Seconds from the creation of a pod until it is ready.
    cold_start_s: float = 60
    #: Placeholders on nodes that have the image (``warmSpares.count``), and seconds until a replica that
    #: takes the place of one is ready. A new node for the placeholder takes as long as a cold start.
    spares: int = 0
    warm_start_s: float = 30
    method: Method = "hpa"
    #: Load per replica, in percent of its capacity.
    target: float = 75
    min_replicas: int = 1
    max_replicas: int = 1000
    #: Times of each day at which there are more replicas at least, as KEDA's trigger ``cron`` does it.
    schedule: tuple[Scheduled, ...] = ()
    behavior: Behavior = CHART
    #: Replicas that die, and interruptions of the metrics, per day.
    failures: float = 0
    outages: float = 0
    #: To which replica a new stream goes, and probability that a refused one returns to the same.
    route: Route = "random"
    affinity: float = 0.5
    #: Which replica is removed first.
    remove: Remove = "newest"
    #: Percent of the streams of the fullest replica that move to others per minute, as the service's setting
    #: REBALANCE_PER_MINUTE. 0: none move, and full replicas pass no stream on.
    rebalance: float = 20

    def __post_init__(self) -> None:
        for field in fields(self):
            low, high = _RANGES.get(field.name, (None, None))
            value = getattr(self, field.name)
            if low is None or high is None or (field.name == "peak" and value == 0):
                continue
            if not low <= value <= high:
                raise BadScenario(f"{_option(field.name)}: expected {low:g} to {high:g}; found {value:g}")
        for fps in self.fps or (0.0,):
            if not 0.1 <= fps <= 1000:
                raise BadScenario(f"--fps: expected 0.1 to 1000; found {fps:g}")
        if self.min_replicas > self.max_replicas:
            raise BadScenario(
                f"--min-replicas: expected at most {self.max_replicas}, --max-replicas; "
                f"found {self.min_replicas}"
            )

    @property
    def peak_streams(self) -> float:
        """The expected number of streams at the highest point of the day."""
        return self.peak or 10 * self.capacity

    @property
    def capacity_fps(self) -> float:
        """The frames per second that one replica can run."""
        return self.capacity * sum(self.fps) / len(self.fps)

    def scheduled(self, now: float) -> int:
        """Return the least number of replicas by the schedule at a time."""
        hour = now % 86_400.0 / 3600
        return max((each.replicas for each in self.schedule if each.begin_h <= hour < each.end_h), default=0)

    @property
    def duration_s(self) -> float:
        """Simulated time."""
        return self.days * 86_400.0


def _option(field: str) -> str:
    """Return the option of the command for a field."""
    return "--" + field.removesuffix("_s").replace("_", "-")
