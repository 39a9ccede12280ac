"""Gives streams of full replicas to replicas with room, as the service does between its replicas.

A replica that must refuse a stream passes it to one with room, and an overloaded replica asks its newest
streams, one after another, to move. In the service, each process decides for its own streams, from reports
that are some seconds old (`rebalance_policy`, whose constants apply here too).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from streamer.replicas.rebalance_policy import (
    GAP,
    LEAST_PER_MINUTE,
    MOST_AT_ONCE,
    ROOM_LOAD,
    START_LOAD,
    STAY_S,
    STOP_LOAD,
    TIE,
)
from streamer.simulation.autoscaling.replica import Replica

#: Seconds between two decisions.
ROUND_S = 10.0


@dataclass(slots=True)
class Rebalancing:
    """Holds what replicas remember. ``per_minute`` is the share of their streams that may move, 0 to 1."""

    per_minute: float
    random: Random
    #: Numbers of the replicas that move streams at the moment.
    _active: set[int] = field(default_factory=set)
    #: How many streams each may move, and when that was computed.
    _tokens: dict[int, tuple[float, float]] = field(default_factory=dict)
    #: When each stream has moved.
    _moved_at: dict[int, float] = field(default_factory=dict)

    def place(self, ready: Sequence[Replica]) -> Replica | None:
        """Return a replica with room for a stream that another one refuses; None if there is none."""
        rooms = {replica: ROOM_LOAD - replica.load for replica in ready if replica.load < ROOM_LOAD}
        return self.random.choices(list(rooms), list(rooms.values()))[0] if rooms else None

    def moves(self, now: float, ready: Sequence[Replica]) -> list[tuple[int, Replica]]:
        """Return the streams that move now, and to which replica."""
        if len(ready) < 2:
            return []
        found: list[tuple[int, Replica]] = []
        loads = [each.load for each in ready]
        highest, lowest = max(loads), min(loads)
        if highest < START_LOAD and not self._active:
            return []
        for replica in ready:
            if replica.load <= STOP_LOAD or highest > replica.load * (1 + TIE):
                self._active.discard(replica.number)
            elif replica.load >= START_LOAD and replica.load - lowest >= GAP:
                self._active.add(replica.number)
            if replica.number in self._active:
                self._refill(now, replica)
                found += self._choose(now, replica, ready)
        return found

    def _refill(self, now: float, replica: Replica) -> None:
        """Let a replica move streams at the allowed rate; at most one move is saved up."""
        per_s = max(LEAST_PER_MINUTE, self.per_minute * len(replica.streams)) / 60
        tokens, at = self._tokens.get(replica.number, (1.0, now))
        added = per_s * (now - at)
        self._tokens[replica.number] = min(tokens + added, max(1.0, per_s * ROUND_S)), now

    def _choose(self, now: float, full: Replica, ready: Sequence[Replica]) -> list[tuple[int, Replica]]:
        found: list[tuple[int, Replica]] = []
        load, added = full.load, dict.fromkeys(ready, 0.0)
        tokens, refilled_at = self._tokens[full.number]
        for stream in reversed(full.streams):
            if tokens < 1 or len(found) >= MOST_AT_ONCE or load <= STOP_LOAD:
                break
            if now - self._moved_at.get(stream, -STAY_S) < STAY_S:
                continue
            share = full.streams[stream] / full.capacity_fps
            rooms = {
                replica: ROOM_LOAD - replica.load - added[replica]
                for replica in ready
                if replica is not full
                and replica.load + added[replica] + share <= min(ROOM_LOAD, load - share)
            }
            if not rooms:
                break
            receiver = self.random.choices(list(rooms), list(rooms.values()))[0]
            tokens -= 1
            self._moved_at[stream] = now
            load -= share
            added[receiver] += share
            found.append((stream, receiver))
        self._tokens[full.number] = tokens, refilled_at
        return found
