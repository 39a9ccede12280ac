"""Moves streams from a full replica to others: asks for their loads, and carries out what the policy decides.

A moved stream gets a `bye` with a time to reconnect. Its client may come back to this replica, because load
balancers keep clients at their replica; then :meth:`Rebalancer.destination` says where it belongs.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from streamer.config.replica_addresses import NAME_LENGTH, Replicas
from streamer.replicas.load_report import LoadReport
from streamer.replicas.peer_reports import PeerReports
from streamer.replicas.rebalance_policy import (
    GAP,
    STALE_S,
    STOP_LOAD,
    MovableStream,
    RebalancePolicy,
    free_to_move,
)

log = logging.getLogger("streamer.rebalance")

#: Interval at which a process asks the other replicas; each one varies by the share `JITTER`.
ROUND_S = 10.0
JITTER = 0.2
#: A client is asked to reconnect after a random time up to this one, so that those who move at the same
#: moment do not arrive together.
RETURN_MS = 1000
#: Load of a stream about which nothing is known yet.
_NEW_STREAM_LOAD = 0.02


class Transport(Protocol):
    """Describes the streams of one transport, as far as they can be moved."""

    name: str

    def movable(self) -> list[MovableStream]:
        """Return the streams that can be asked to move; the key of each is the id of its session."""

    def move(self, key: str, reconnect_ms: int) -> bool:
        """Ask a stream to reconnect after that time; return False if it has ended."""


class Shared(Protocol):
    """Describes the memory in which the processes of a replica share what they know."""

    def post(self, field: str, value: float) -> None:
        """Write a field."""

    def read(self, field: str) -> float:
        """Read a field."""


class Rebalancer:
    """Moves the streams of one process. Replicas that are alone, or have `REBALANCE=0`, have none.

    ``own`` returns the load of this replica. ``moved`` is called for each moved stream, with its transport.
    ``resume_s`` is the time for which a session can be resumed.
    """

    def __init__(
        self,
        replicas: Replicas,
        own: Callable[[], LoadReport],
        policy: RebalancePolicy,
        shared: Shared,
        moved: Callable[[str], None],
        *,
        resume_s: float,
    ) -> None:
        self._replicas = replicas
        self._own = own
        self._policy = policy
        self._shared = shared
        self._moved = moved
        self._resume_s = resume_s
        self._reports = PeerReports(replicas)
        self._transports: list[Transport] = []
        #: Where sessions were sent, and until when that counts, by their id; oldest first.
        self._destinations: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._task: asyncio.Task[None] | None = None

    def add(self, transport: Transport) -> None:
        """Let the streams of a transport be moved."""
        self._transports.append(transport)

    def start(self) -> None:
        """Start to ask the other replicas at intervals."""
        self._task = asyncio.create_task(self._run(), name="rebalancer")

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
        await self._reports.close()

    # -- streams that come -----------------------------------------------------------------------------

    @property
    def can_help(self) -> bool:
        """Whether a stream that finds no room here may belong to another replica, or find room at one."""
        now = time.monotonic()
        return now < self._shared.read("moving_until") or self._policy.has_room(
            now, self._own(), self._reports.latest
        )

    def moved_to(self, session: str) -> str | None:
        """Return the name of the replica to which this process has sent a session; None if it has not."""
        to, until = self._destinations.get(session, ("", 0.0))
        return to if to and time.monotonic() < until else None

    def destination(self, session: str) -> str | None:
        """Return the name of the replica at which a session that a client resumes here belongs.

        This is the one to which it was sent, or the one that has it, as long as this replica has less room.
        None: it belongs here, or another process must say.
        """
        sent = self.moved_to(session)
        if sent is not None:
            return sent
        name = session[:NAME_LENGTH]
        report = self._reports.latest.get(name)
        if report is None or name == self._replicas.name or not report.load.available:
            return None
        own = self._own().load
        return name if own > STOP_LOAD and own - report.load.load >= GAP else None

    def place(self) -> str | None:
        """Return the name of a replica that has room for a stream that is refused here; None if none has."""
        return self._policy.place(time.monotonic(), self._own(), self._reports.latest, _NEW_STREAM_LOAD)

    def place_while_moving(self) -> str | None:
        """Return where a new session goes while this overloaded replica moves streams; None: it stays here.

        Sessions over WebRTC are not resumed, so an offer does not say whether its client was asked to move.
        """
        moving = time.monotonic() < self._shared.read("moving_until")
        return self.place() if moving and self._own().load > STOP_LOAD else None

    def refused(self, name: str) -> None:
        """Note that a replica did not take a stream."""
        self._policy.refused(name)

    # -- streams that go -------------------------------------------------------------------------------

    async def _run(self) -> None:
        await asyncio.sleep(random.uniform(0, ROUND_S))  # noqa: S311 - not for cryptography
        while True:
            try:
                await self._round()
            except Exception:
                log.exception("streams could not be rebalanced; this is tried again")
            await asyncio.sleep(ROUND_S * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 - as above

    async def _round(self) -> None:
        await self._reports.ask()
        now = time.monotonic()
        while self._destinations and next(iter(self._destinations.values()))[1] < now:
            self._destinations.popitem(last=False)
        own = self._own()
        if not own.available:  # it drains, or restarts its inference process
            return
        streams = {stream.key: (stream, each) for each in self._transports for stream in each.movable()}
        movable = [stream for stream, _ in streams.values()]
        if free_to_move(movable, now):
            self._shared.post("can_move_until", now + STALE_S)
        moves = self._policy.decide(now, own, self._reports.latest, movable)
        for key, to in moves:
            transport = streams[key][1]
            if not transport.move(key, random.randrange(RETURN_MS)):  # noqa: S311 - as above
                continue
            until = now + RETURN_MS / 1e3 + self._resume_s
            self._destinations[key] = to, until
            self._shared.post("moving_until", max(until, self._shared.read("moving_until")))
            self._moved(transport.name)
            log.info(
                "a stream moves to replica %s: load %.2f here, %.2f there",
                *(to, own.load, self._reports.latest[to].load.load),
            )
