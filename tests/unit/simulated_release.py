"""Simulates the replicas of a release that report their loads and move streams."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from streamer.replicas.load_report import LoadReport
from streamer.replicas.rebalance_policy import STAY_S, MovableStream, PeerReport, RebalancePolicy

#: Seconds between two rounds of a process, with jitter, as in `rebalancer`.
ROUND_S = 10.0
#: Seconds from a move until the stream runs at its new replica.
AWAY_S = 2


@dataclass
class Stream:
    """A stream with its demand in frames per second, its replica, and the times at which it moved."""

    key: str
    fps: float
    replica: str | None
    opened_at: float
    moved_at: float | None = None
    moves: list[tuple[float, str, str]] = field(default_factory=list)


class Release:
    """Replicas with their capacity in frames per second, and streams that stay unless they are moved.

    ``processes`` is the number of processes of each replica, ``noise`` the relative error of measured loads.
    """

    def __init__(
        self,
        capacities: dict[str, float],
        seed: int,
        *,
        processes: int = 1,
        per_minute: float = 0.2,
        noise: float = 0.02,
    ) -> None:
        self.random = random.Random(seed)
        self.capacities = capacities
        self.streams: list[Stream] = []
        self.now = 0.0
        self._opened = 0
        self.unavailable: set[str] = set()
        #: Replicas that answer nobody, so that the last report about them becomes old.
        self.silent: set[str] = set()
        #: Loads that replicas report whatever their true load is.
        self.lies: dict[str, float] = {}
        self._per_minute, self._processes, self._noise = per_minute, processes, noise
        self._policies: dict[tuple[str, int], RebalancePolicy] = {}
        self._reports: dict[tuple[str, int], dict[str, PeerReport]] = {}
        self._due: dict[tuple[str, int], float] = {}
        self._arriving: list[tuple[float, Stream, str]] = []
        for name in capacities:
            self.start(name, capacities[name])

    def start(self, name: str, capacity_fps: float) -> None:
        """Start a replica."""
        self.capacities[name] = capacity_fps
        for number in range(self._processes):
            process = name, number
            self._policies[process] = RebalancePolicy(
                self._per_minute, self._processes, random.Random(self.random.random())
            )
            self._reports[process] = {}
            self._due[process] = self.now + self.random.uniform(0, ROUND_S)

    def stop(self, name: str) -> None:
        """Remove a replica without streams."""
        del self.capacities[name]
        for number in range(self._processes):
            del self._due[name, number]

    def open(self, name: str, fps: float) -> None:
        """Open a stream at a replica."""
        self._opened += 1
        self.streams.append(Stream(f"s{self._opened}", fps, name, self.now))

    def at(self, name: str) -> list[Stream]:
        """Return the streams of a replica."""
        return [each for each in self.streams if each.replica == name]

    def load(self, name: str) -> float:
        """Return the true load of a replica."""
        return sum(each.fps for each in self.at(name)) / self.capacities[name]

    @property
    def moves(self) -> list[tuple[float, str, str]]:
        """Time, sender and receiver of each move, in order."""
        return sorted(move for stream in self.streams for move in stream.moves)

    def run(self, seconds: int) -> None:
        """Run the release for a while."""
        end = self.now + seconds
        while True:
            # Nothing happens between these times.
            following = min([*self._due.values(), *(at for at, *_ in self._arriving)])
            if following > end:
                self.now = end
                return
            self.now = following
            for due, stream, name in [each for each in self._arriving if each[0] <= self.now]:
                stream.replica, stream.moved_at = name, self.now
                self._arriving.remove((due, stream, name))
            for process in [process for process, at in self._due.items() if at <= self.now]:
                self._round(process)

    def _measured(self, name: str) -> LoadReport:
        error = 1 + self.random.uniform(-self._noise, self._noise)
        load = self.lies.get(name, self.load(name) * error)
        movable = any(each.moved_at is None or self.now - each.moved_at >= STAY_S for each in self.at(name))
        return LoadReport(
            load, len(self.at(name)), self.capacities[name], name not in self.unavailable, movable
        )

    def _round(self, process: tuple[str, int]) -> None:
        name, number = process
        self._due[process] = self.now + ROUND_S * self.random.uniform(0.8, 1.2)
        for peer in self.capacities.keys() - {name} - self.silent:
            self._reports[process][peer] = PeerReport(self._measured(peer), self.now)
        own = {each.key: each for each in self.at(name) if int(each.key[1:]) % self._processes == number}
        movable = [
            MovableStream(each.key, each.fps / self.capacities[name], each.opened_at, each.moved_at)
            for each in own.values()
        ]
        for move in self._policies[process].decide(
            self.now, self._measured(name), self._reports[process], movable
        ):
            stream = own[move.key]
            stream.moves.append((self.now, name, move.to))
            stream.replica = None
            self._arriving.append((self.now + AWAY_S, stream, move.to))
