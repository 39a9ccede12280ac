"""Gives streams of full replicas to replicas with room, as the service does between its replicas.

A replica that must refuse a stream passes it to one with room, and an overloaded replica asks its newest
streams, one after another, to move. In the service, each process decides for its own streams, from reports
that are some seconds old (docs/decisions/0085-rebalancing-streams.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from streamer.simulation.autoscaling.replica import Replica

#: Seconds between two decisions.
ROUND_S = 10.0
#: Load of a replica, of 1, at which it begins to move streams, at which it stops, and up to which others take
#: them; and the least difference between the two.
_START_LOAD, _STOP_LOAD, _ROOM_LOAD, _GAP = 0.85, 0.70, 0.80, 0.20
#: A replica is the fullest one if no other's load is higher by more than this share.
_TIE = 0.05
#: A replica with few streams may move this many per minute; in one decision it moves at most so many.
_LEAST_PER_MINUTE, _MOST_AT_ONCE = 1.0, 4
#: For this long a stream that has moved stays.
_STAY_S = 600.0


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
        rooms = {replica: _ROOM_LOAD - replica.load for replica in ready if replica.load < _ROOM_LOAD}
        return self.random.choices(list(rooms), list(rooms.values()))[0] if rooms else None

    def moves(self, now: float, ready: Sequence[Replica]) -> list[tuple[int, Replica]]:
        """Return the streams that move now, and to which replica."""
        if len(ready) < 2:
            return []
        found: list[tuple[int, Replica]] = []
        loads = [each.load for each in ready]
        highest, lowest = max(loads), min(loads)
        if highest < _START_LOAD and not self._active:
            return []
        for replica in ready:
            if replica.load <= _STOP_LOAD or highest > replica.load * (1 + _TIE):
                self._active.discard(replica.number)
            elif replica.load >= _START_LOAD and replica.load - lowest >= _GAP:
                self._active.add(replica.number)
            if replica.number in self._active:
                self._refill(now, replica)
                found += self._choose(now, replica, ready)
        return found

    def _refill(self, now: float, replica: Replica) -> None:
        """Let a replica move streams at the allowed rate; at most one move is saved up."""
        per_s = max(_LEAST_PER_MINUTE, self.per_minute * len(replica.streams)) / 60
        tokens, at = self._tokens.get(replica.number, (1.0, now))
        added = per_s * (now - at)
        self._tokens[replica.number] = min(tokens + added, max(1.0, per_s * ROUND_S)), now

    def _choose(self, now: float, full: Replica, ready: Sequence[Replica]) -> list[tuple[int, Replica]]:
        found: list[tuple[int, Replica]] = []
        load, added = full.load, dict.fromkeys(ready, 0.0)
        tokens, refilled_at = self._tokens[full.number]
        for stream in reversed(full.streams):
            if tokens < 1 or len(found) >= _MOST_AT_ONCE or load <= _STOP_LOAD:
                break
            if now - self._moved_at.get(stream, -_STAY_S) < _STAY_S:
                continue
            share = full.streams[stream] / full.capacity_fps
            rooms = {
                replica: _ROOM_LOAD - replica.load - added[replica]
                for replica in ready
                if replica is not full
                and replica.load + added[replica] + share <= min(_ROOM_LOAD, load - share)
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
