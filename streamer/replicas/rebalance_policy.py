"""Decides which streams a full replica asks to move to which other replica, and when. Pure.

A move costs a client one reconnect, so streams move only where it helps and lasts: away from the fullest
replica, while it is overloaded, to replicas that have had room for a while. `rebalancer` asks regularly and
carries the moves out. Times are monotonic seconds; loads are demand over capacity, as in `LoadReport`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from streamer.replicas.load_report import LoadReport

#: A replica begins to move streams above the first load, and stops at the second one.
START_LOAD = 0.85
STOP_LOAD = 0.70
#: Moves never raise the load of a receiver above this one.
ROOM_LOAD = 0.80
#: Least difference of the loads at which moves begin. They stop when one more move would turn it around.
GAP = 0.20
#: A replica whose load is lower than another's by at most this share counts as equally full.
TIE = 0.05
#: How long a replica must have been overloaded, and the receiver must have had room, before moves begin.
HOLD_S = 15.0
LASTING_S = 15.0
#: Age at which a report no longer counts.
STALE_S = 30.0
#: Time until a moved stream is part of the receiver's reported load; until then the sender adds it.
SETTLE_S = 30.0
#: A stream that has moved stays for at least this long.
STAY_S = 600.0
#: A replica with few streams may move this many per minute.
LEAST_PER_MINUTE = 1.0
#: Largest factor by which the load of a replica that claims a larger capacity than this one counts as higher.
MOST_DOUBT = 2.0
#: Most moves in one decision, so that a receiver never gets many new connections at the same moment.
MOST_AT_ONCE = 4


class PeerReport(NamedTuple):
    """What another replica reported, and when."""

    load: LoadReport
    at: float


@dataclass(frozen=True, slots=True)
class MovableStream:
    """A connection or session of this process that can be asked to move."""

    key: str
    #: Its share of the load of this replica.
    load: float
    opened_at: float
    #: When it last moved; None if it never has.
    moved_at: float | None = None


class Move(NamedTuple):
    """A decision to move one stream."""

    key: str
    #: Name of the replica that receives it.
    to: str


@dataclass(slots=True)
class _Receiver:
    """What this process knows about one other replica."""

    #: Since when it has had room without interruption; None while it has none.
    room_since: float | None = None
    #: When streams were sent there, and the load that each adds.
    sent: deque[tuple[float, float]] = field(default_factory=deque)

    def pending(self, now: float) -> float:
        """Return the load that was sent there and is not yet part of its report."""
        while self.sent and now - self.sent[0][0] > SETTLE_S:
            self.sent.popleft()
        return sum(load for _, load in self.sent)


class RebalancePolicy:
    """Decides the moves of one process.

    ``per_minute`` is the largest share of the streams that move in a minute, 0 to 1. ``processes`` is the
    number of processes of this replica, each of which decides for its own streams.
    """

    def __init__(self, per_minute: float, processes: int = 1, choose: random.Random | None = None) -> None:
        self._per_minute = per_minute
        self._processes = processes
        self._choose = choose or random.Random()  # noqa: S311 - not for cryptography
        self._receivers: dict[str, _Receiver] = {}
        self._overloaded_since: float | None = None
        self._active = False
        #: Number of streams that may move now, and when it was last raised.
        self._tokens = 0.0
        self._refilled_at: float | None = None

    def decide(
        self,
        now: float,
        own: LoadReport,
        reports: Mapping[str, PeerReport],
        streams: Sequence[MovableStream],
    ) -> list[Move]:
        """Return the streams to move now, usually none."""
        peers = _usable(now, reports, own.capacity_fps)
        self._watch_room(now, peers)
        self._refill(now, len(streams))
        if not self._should_move(now, own, peers):
            return []
        moves: list[Move] = []
        own_load = own.load
        for stream in sorted(free_to_move(streams, now), key=lambda each: -each.opened_at):
            if self._tokens < 1 or len(moves) >= MOST_AT_ONCE or own_load <= STOP_LOAD:
                break
            receiver = self._receiver_for(now, stream, own, own_load, peers)
            if receiver is None:
                continue
            self._receivers[receiver].sent.append((now, _load_there(stream, own, peers[receiver])))
            self._tokens -= 1
            own_load -= stream.load
            moves.append(Move(stream.key, receiver))
        return moves

    def place(
        self, now: float, own: LoadReport, reports: Mapping[str, PeerReport], load: float
    ) -> str | None:
        """Return the replica that takes a new stream for which there is no room here; None if none can.

        ``load`` is what the stream adds there, as far as it is known.
        """
        rooms = self._rooms(now, own, reports, load)
        if not rooms:
            return None
        name = self._choose.choices(list(rooms), list(rooms.values()))[0]
        self._receivers.setdefault(name, _Receiver()).sent.append((now, load))
        return name

    def has_room(self, now: float, own: LoadReport, reports: Mapping[str, PeerReport]) -> bool:
        """Whether another replica could take a stream."""
        return bool(self._rooms(now, own, reports, 0.0))

    def _rooms(
        self, now: float, own: LoadReport, reports: Mapping[str, PeerReport], load: float
    ) -> dict[str, float]:
        """Return the room of each replica that can take a stream of this load."""
        rooms: dict[str, float] = {}
        for name, peer in _usable(now, reports, own.capacity_fps).items():
            receiver = self._receivers.get(name)
            room = ROOM_LOAD - peer.load - (receiver.pending(now) if receiver is not None else 0.0)
            if room > load:
                rooms[name] = room
        return rooms

    def refused(self, name: str) -> None:
        """Note that a replica did not take a stream: it must show again that it has lasting room."""
        if name in self._receivers:
            self._receivers[name].room_since = None

    def _watch_room(self, now: float, peers: Mapping[str, LoadReport]) -> None:
        """Note which replicas have had room since when, and forget those without a recent report."""
        for name in [name for name in self._receivers if name not in peers]:
            del self._receivers[name]
        for name, peer in peers.items():
            receiver = self._receivers.setdefault(name, _Receiver())
            if peer.load + receiver.pending(now) >= ROOM_LOAD:
                receiver.room_since = None
            elif receiver.room_since is None:
                receiver.room_since = now

    def _refill(self, now: float, streams: int) -> None:
        """Let streams move at the allowed rate. At most one move is saved up, so that no burst follows."""
        least = LEAST_PER_MINUTE / self._processes
        per_s = max(least, self._per_minute * streams) / 60
        elapsed_s = 0.0 if self._refilled_at is None else now - self._refilled_at
        self._refilled_at = now
        self._tokens = min(max(1.0, per_s * elapsed_s), self._tokens + per_s * elapsed_s)

    def _should_move(self, now: float, own: LoadReport, peers: Mapping[str, LoadReport]) -> bool:
        """Return whether this replica is the one that moves streams now. Has hysteresis."""
        # A fuller replica without streams to move, such as one with video alone, keeps no other from moving.
        fullest = all(peer.load <= own.load * (1 + TIE) for peer in peers.values() if peer.can_move)
        if not peers or not fullest or own.load <= STOP_LOAD:
            self._active, self._overloaded_since = False, None
            return False
        if self._active:
            return True
        if own.load < START_LOAD or own.load - min(peer.load for peer in peers.values()) < GAP:
            self._overloaded_since = None
            return False
        if self._overloaded_since is None:
            self._overloaded_since = now
        self._active = now - self._overloaded_since >= HOLD_S
        return self._active

    def _receiver_for(
        self,
        now: float,
        stream: MovableStream,
        own: LoadReport,
        own_load: float,
        peers: Mapping[str, LoadReport],
    ) -> str | None:
        """Return a replica that can take a stream, with a probability by its room; None if none can."""
        # Other replicas that are as full may choose the same receiver before it reports their streams. All of
        # them, and all processes of this one, share its room; each takes a share smaller than one stream
        # with the probability that makes their sum fit.
        senders = self._processes * (1 + sum(peer.load >= START_LOAD for peer in peers.values()))
        rooms: dict[str, float] = {}
        for name, peer in peers.items():
            receiver = self._receivers[name]
            if receiver.room_since is None or now - receiver.room_since < LASTING_S:
                continue
            pending, added = receiver.pending(now), _load_there(stream, own, peer)
            room = ROOM_LOAD - peer.load - pending
            # After the move the receiver must not be the fuller one, or the stream would move back.
            if room < added or own_load - stream.load < peer.load + pending + added:
                continue
            share = (ROOM_LOAD - peer.load) / senders
            if pending + added <= share or self._choose.random() < share / added:
                rooms[name] = room
        if not rooms:
            return None
        return self._choose.choices(list(rooms), list(rooms.values()))[0]


def _usable(now: float, reports: Mapping[str, PeerReport], own_fps: float) -> dict[str, LoadReport]:
    """Return the recent reports of replicas that can take streams.

    A replica that has never been busy knows its capacity only by its warm-up, and may estimate it too high.
    So a load that is relative to a larger capacity than this replica's ``own_fps`` counts as higher.
    """
    return {
        name: replace(load, load=load.load * min(MOST_DOUBT, max(1.0, load.capacity_fps / own_fps)))
        for name, (load, at) in reports.items()
        if load.available and load.capacity_fps > 0 and own_fps > 0 and now - at <= STALE_S
    }


def free_to_move(streams: Iterable[MovableStream], now: float) -> list[MovableStream]:
    """Return the streams that use the device and have not moved recently."""
    return [
        stream
        for stream in streams
        if stream.load > 0 and (stream.moved_at is None or now - stream.moved_at >= STAY_S)
    ]


def _load_there(stream: MovableStream, own: LoadReport, peer: LoadReport) -> float:
    """Return the load that a stream adds to a replica whose device may be slower."""
    return stream.load * max(1.0, own.capacity_fps / peer.capacity_fps)
