"""Holds the engines that serve one assignment of models, and chooses one of them for each frame."""

from __future__ import annotations

import asyncio
import logging
from array import array
from dataclasses import dataclass

from inference.ipc.engine_connection import EngineConnection, Owner, Ticket
from inference.ipc.engine_table import EngineTable
from inference.ipc.served_model import ServedModel, combined
from inference.ipc.shared_status import ENGINE_SLOTS, WORKER_SLOTS, SharedStatus

log = logging.getLogger("inference.client")

#: Most streams whose engine is remembered; of more, those without a frame in flight are forgotten.
_MOST_PLACES = 10_000
#: A stream stays with an engine that is later by at most this part of a run. With a whole run, an engine
#: would be idle while another one has a frame too many.
_LOYALTY = 0.5


@dataclass(slots=True)
class _StreamPlace:
    """Remembers which engine has the frames of a stream, and how many it has now."""

    engine: EngineConnection
    in_flight: int = 0


class Generation:
    """Holds the connections to the engines of one generation. All methods run on the event loop."""

    def __init__(
        self,
        table: EngineTable,
        epoch: int,
        owner: Owner,
        worker: int,
        work: memoryview[float] | array[float],
    ) -> None:
        self.table = table
        #: Tickets name it. It changes when all engines were lost.
        self.epoch = epoch
        self.engines = tuple(EngineConnection(entry, owner) for entry in table.engines)
        self._by_slot = {engine.entry.slot: engine for engine in self.engines}
        #: Engines that can run frames now, beginning with another one for each worker.
        self.usable: list[EngineConnection] = []
        #: Whether the generation has a single engine, so that there is nothing to choose or to count.
        self.alone = len(self.engines) == 1
        #: Number of tickets of the present epoch.
        self.open = 0
        #: Whether another generation is current, so that this one ends with its last ticket.
        self.replaced = False
        self._worker = worker
        #: Work in flight by engine slot and worker, `EngineSet` owns it.
        self._work = work
        self._places: dict[int, _StreamPlace] = {}

    def start(self) -> None:
        """Start connecting to all engines."""
        for engine in self.engines:
            engine.start()

    async def close(self) -> None:
        """Close all connections. Frames in flight end with InferenceLost."""
        await asyncio.gather(*(engine.close() for engine in self.engines))

    def engine_in(self, slot: int) -> EngineConnection:
        """Return the engine of a slot."""
        return self._by_slot[slot]

    def announced(self) -> list[dict[str, ServedModel]]:
        """Return the models of each engine; those that have not announced any count as the others."""
        known = next((engine.models for engine in self.engines if engine.models), {})
        return [engine.models or known for engine in self.engines]

    def update(self) -> None:
        """Find out which engines are usable: those that are ready and serve the same models as the first."""
        ready = [engine for engine in self.engines if engine.ready]
        # An engine that serves already decides: streams run with its models.
        first = next((engine for engine in self.usable if engine.ready), ready[0] if ready else None)
        usable: list[EngineConnection] = []
        for engine in ready:
            if first is None or _same_models(engine, first):
                usable.append(engine)
            else:
                log.error(
                    "engine %d has loaded other models than engine %d and is not used: restart the service",
                    engine.entry.index,
                    first.entry.index,
                )
        turn = self._worker % len(usable) if usable else 0
        self.usable = usable[turn:] + usable[:turn]

    def models(self) -> dict[str, ServedModel]:
        """Return what the usable engines, at least one, can do together, by version."""
        return {
            version: combined([engine.models[version] for engine in self.usable])
            for version in self.usable[0].models
        }

    # -- choice --------------------------------------------------------------------------------------

    def choose(self, ticket: Ticket, stream: int, version: str) -> EngineConnection:
        """Return the engine for a frame, one of at least one usable, and count the frame.

        It is the one that is expected to finish the frame first. A stream stays with its engine unless that
        one is later by more than half a run. It stays in any case while a frame of it is in flight, so that
        its results stay in order.
        """
        if ticket.shadow:  # other frames end its run, so it does not count
            return self._earliest(version, None)
        place = self._places.get(stream) if stream else None
        if place is not None and place.engine.ready and place.in_flight:
            engine = place.engine
        else:
            engine = self._earliest(version, None if place is None else place.engine)
        if stream:
            if place is None:
                if len(self._places) >= _MOST_PLACES:
                    self._forget_idle()
                place = self._places[stream] = _StreamPlace(engine)
            place.engine = engine
            place.in_flight += 1
        ticket.stream = stream
        ticket.work_s = work_s = engine.frame_s[version]
        self._work[engine.entry.slot * WORKER_SLOTS + self._worker] += work_s
        return engine

    def forget(self, ticket: Ticket) -> None:
        """Stop counting a frame that :meth:`choose` has counted."""
        cell = ticket.engine * WORKER_SLOTS + self._worker
        if self._by_slot[ticket.engine].in_flight:
            self._work[cell] -= ticket.work_s
        else:
            self._work[cell] = 0.0  # rounding errors do not add up
        place = self._places.get(ticket.stream)
        if place is not None:
            place.in_flight -= 1

    def _earliest(self, version: str, present: EngineConnection | None) -> EngineConnection:
        best, best_s = self.usable[0], float("inf")
        for engine in self.usable:
            start = engine.entry.slot * WORKER_SLOTS
            # The work of all workers that this engine has, and the run of the frame.
            done_s = sum(self._work[start : start + WORKER_SLOTS]) + engine.run_s[version]
            if engine is present:
                done_s -= _LOYALTY * engine.run_s[version]
            if done_s < best_s:
                best, best_s = engine, done_s
        return best

    def _forget_idle(self) -> None:
        self._places = {stream: place for stream, place in self._places.items() if place.in_flight}


def work_in_flight(shared_status: SharedStatus | None, worker: int) -> memoryview[float] | array[float]:
    """Return the work in flight by engine slot and worker, in seconds of the engine; ``worker`` has none.

    All workers share it; without a shared status, it is that of this worker alone.
    """
    work: memoryview[float] | array[float] = (
        array("d", bytes(8 * ENGINE_SLOTS * WORKER_SLOTS)) if shared_status is None else shared_status.work()
    )
    for slot in range(ENGINE_SLOTS):
        work[slot * WORKER_SLOTS + worker] = 0.0
    return work


def _same_models(engine: EngineConnection, other: EngineConnection) -> bool:
    def models(of: EngineConnection) -> dict[str, tuple[str, int, int]]:
        return {
            version: (model.info.sha256, model.info.input_width, model.info.input_height)
            for version, model in of.models.items()
        }

    return engine is other or models(engine) == models(other)
