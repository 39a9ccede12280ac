"""All replicas of a release and the streams at them: openings, refusals, failures, drains and moves.

Time passes in `Fleet.advance`; the loop beside it (`loop`) decides when replicas come and go.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from enum import IntEnum
from random import Random

from streamer.scheduling.load_counters import RETURN_S
from streamer.simulation.autoscaling.population import Population
from streamer.simulation.autoscaling.rebalancing import Rebalancing
from streamer.simulation.autoscaling.replica import Replica
from streamer.simulation.autoscaling.scenario import Scenario

#: A pod of a dead node is evicted after this time (tolerationSeconds of the default tolerations).
_EVICTED_AFTER_S = 300.0
#: Time over which a draining replica spreads the ends of its streams.
_DRAIN_S = 20.0
#: A stream whose connection breaks returns within the first range of seconds; one that is told to, within
#: the second.
_BROKEN_S, _TOLD_S = (1.0, 10.0), (0.1, 1.0)


class _Kind(IntEnum):
    READY = 0
    END = 1
    LEAVE = 2
    OPEN = 3


@dataclass(slots=True)
class Counts:
    """Counts what happened to streams. An opening is a start, or a return after a failure, drain or move."""

    begun: int = 0
    openings: int = 0
    #: Openings that were refused at least once, and all refusals.
    refused: int = 0
    refusals: int = 0
    #: Streams that ended while they were served, and streams whose time passed while they waited.
    ended: int = 0
    given_up: int = 0
    moved: int = 0
    #: Seconds for which openings waited, summed.
    waited_s: float = 0.0


class Fleet:
    """Simulates the replicas and streams of one release."""

    def __init__(self, scenario: Scenario, population: Population, random: Random) -> None:
        self._scenario = scenario
        self._random = random
        self._rebalancing = Rebalancing(scenario.rebalance / 100, random)
        self._starts = population.starts.tolist()
        self._ends = population.ends.tolist()
        self._fps = random.choices(scenario.fps, k=len(self._starts))
        self._begun = 0
        self.counts = Counts()
        #: All pods that exist, oldest first.
        self.replicas: list[Replica] = []
        #: Those that new streams reach.
        self._ready: list[Replica] = []
        self._numbers = 0
        #: When each placeholder has a node, as a heap.
        self._spares = [0.0] * scenario.spares
        self._events: list[tuple[float, int, int, int, Replica | None]] = []
        self._sequence = 0
        #: Where each stream is served; streams that are missing wait, or are between two replicas.
        self._places: dict[int, Replica] = {}
        #: Since when the opening of a stream waits, for those that were refused.
        self._waiting: dict[int, float] = {}

    @property
    def refused(self) -> int:
        """Number of streams that were refused and wait to return."""
        return len(self._waiting)

    @property
    def served(self) -> int:
        """Number of streams that are served."""
        return len(self._places)

    def advance(self, until: float) -> None:
        """Let everything happen that happens up to a time."""
        starts, events = self._starts, self._events
        while True:
            start = starts[self._begun] if self._begun < len(starts) else math.inf
            if events and events[0][0] <= start:
                if events[0][0] > until:
                    return
                now, kind, _, stream, replica = heapq.heappop(events)
                self._happen(now, kind, stream, replica)
            elif start <= until:
                self._begun += 1
                self._begin(start, self._begun - 1)
            else:
                return

    def create(self, now: float, number: int, *, cold: bool = True) -> None:
        """Create replicas, which are ready after their cold start."""
        for _ in range(number):
            ready_at = now + (self._start_s(now) if cold else 0.0)
            replica = Replica(
                self._numbers, now, ready_at, self._scenario.capacity_fps, self._scenario.min_fps
            )
            self._numbers += 1
            self.replicas.append(replica)
            self._at(ready_at, _Kind.READY, -1, replica)

    def _start_s(self, now: float) -> float:
        """Return the time until a new replica is ready; it takes the place of a spare if there is one."""
        cold_s = self._scenario.cold_start_s
        if not self._spares or self._spares[0] > now:
            return cold_s
        heapq.heapreplace(self._spares, now + cold_s)
        return min(cold_s, self._scenario.warm_start_s)

    def remove(self, now: float, number: int) -> None:
        """Drain replicas: first those that are not ready, then by the rule of the scenario."""

        def order(replica: Replica) -> tuple[bool, float]:
            if self._scenario.remove == "emptiest":
                return replica.is_ready(now), replica.demand_fps
            return replica.is_ready(now), -replica.number

        candidates = sorted((each for each in self.replicas if not each.draining), key=order)
        for replica in candidates[:number]:
            replica.draining = True
            self._leave_ready(replica)
            for stream in replica.streams:
                self._at(now + self._random.uniform(0, _DRAIN_S), _Kind.LEAVE, stream, replica)

    def kill(self, now: float) -> None:
        """Let the node of one ready replica die: its streams return elsewhere, and a new pod comes later."""
        if not self._ready:
            return
        replica = self._random.choice(self._ready)
        replica.died_at = now
        self._leave_ready(replica)
        for stream in list(replica.streams):
            replica.remove(stream)
            del self._places[stream]
            self.counts.openings += 1
            self._at(now + self._random.uniform(*_BROKEN_S), _Kind.OPEN, stream, None)

    def sweep(self, now: float) -> None:
        """Forget drained pods, and replace those whose node died a while ago."""
        evicted = [
            each
            for each in self.replicas
            if each.died_at is not None and not each.draining and now >= each.died_at + _EVICTED_AFTER_S
        ]
        self.replicas = [
            each for each in self.replicas if not (each.draining and not each.streams) and each not in evicted
        ]
        self.create(now, len(evicted))

    def rebalance(self, now: float) -> None:
        """Let replicas move streams, if the scenario has rebalancing."""
        if self._scenario.rebalance:
            for stream, replica in self._rebalancing.moves(now, self._ready):
                self._leave(now, stream, replica)

    def _leave_ready(self, replica: Replica) -> None:
        if replica in self._ready:
            self._ready.remove(replica)

    def _at(self, time: float, kind: _Kind, stream: int, replica: Replica | None) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (time, kind, self._sequence, stream, replica))

    def _happen(self, now: float, kind: int, stream: int, replica: Replica | None) -> None:
        if kind == _Kind.END:
            self._end(now, stream)
        elif kind == _Kind.OPEN:
            if now < self._ends[stream]:
                self._open(now, stream, replica)
        elif kind == _Kind.LEAVE:
            if replica is not None and self._places.get(stream) is replica:
                self._leave(now, stream, None)
        elif replica is not None and replica.is_ready(now):
            self._ready.append(replica)

    def _begin(self, now: float, stream: int) -> None:
        self.counts.begun += 1
        if self._ends[stream] < math.inf:
            self._at(self._ends[stream], _Kind.END, stream, None)
        if now > 0:
            self.counts.openings += 1
            self._open(now, stream, None)
        else:
            # The simulated time begins in the middle of a normal day, so these are spread evenly.
            self._open(now, stream, min(self._ready, key=lambda each: each.demand_fps, default=None))

    def _end(self, now: float, stream: int) -> None:
        place = self._places.pop(stream, None)
        if place is not None:
            place.remove(stream)
        since = self._waiting.pop(stream, None)
        if since is None:
            self.counts.ended += 1
        else:
            self.counts.given_up += 1
            self.counts.waited_s += now - since

    def _leave(self, now: float, stream: int, to: Replica | None) -> None:
        """Tell a stream to connect again, through the load balancer or ``to`` a replica."""
        self._places.pop(stream).remove(stream)
        self.counts.moved += 1
        self.counts.openings += 1
        self._at(now + self._random.uniform(*_TOLD_S), _Kind.OPEN, stream, to)

    def _open(self, now: float, stream: int, replica: Replica | None) -> None:
        """Let a stream connect to ``replica``, or where the load balancer sends it."""
        if replica is None or not replica.is_ready(now):
            replica = self._route()
        fps = self._fps[stream]
        server = replica
        if server is not None and not server.admits():
            # Counts as a refusal in the load of this replica, whoever serves the stream in the end.
            server.refuse(now, fps)
            server = self._rebalancing.place(self._ready) if self._scenario.rebalance else None
        if server is not None and server.admits():
            server.add(stream, fps)
            self._places[stream] = server
            since = self._waiting.pop(stream, None)
            if since is not None:
                self.counts.waited_s += now - since
            return
        self.counts.refusals += 1
        if stream not in self._waiting:
            self.counts.refused += 1
            # A stream that is there from the beginning is no opening, unless it is refused.
            self.counts.openings += now == 0
            self._waiting[stream] = now
        again = replica if self._random.random() < self._scenario.affinity else None
        self._at(now + RETURN_S + self._random.random(), _Kind.OPEN, stream, again)

    def _route(self) -> Replica | None:
        if not self._ready:
            return None
        if self._scenario.route == "least":
            return min(self._ready, key=lambda each: len(each.streams))
        return self._random.choice(self._ready)
