"""Gives a worker one view of all engines: chooses the engine of each frame, and changes over to other models.

It runs on the event loop of the worker; only `pixels` may be called from other threads. The engine of a frame
is chosen when its pixels are in the ring, so a frame is never decoded for an engine that has gone meanwhile.
The engine table of the supervisor says which engines there are.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.core.detection_params import DetectionParams
from inference.core.errors import InferenceLost, InferenceUnavailable, WireError
from inference.ipc.engine_connection import EngineConnection, Ticket
from inference.ipc.engine_table import EngineTable, TableReader
from inference.ipc.generation import Generation, work_in_flight
from inference.ipc.handshake import ring_size
from inference.ipc.ring import FrameRing
from inference.ipc.ring_pool import RingPool
from inference.ipc.served_model import ServedModel, changed_versions
from inference.ipc.shared_document import SharedDocument
from inference.ipc.shared_status import SharedStatus
from inference.ipc.stream_order import StreamOrder
from inference.ipc.wire import Result
from inference.models.model import ModelInfo

#: Longest time that a new generation waits for its last engines once one of them is ready.
SWITCH_S = 5.0


class EngineSet:
    """Sends frames to the engines of the current generation, and receives their results.

    Call ``start()``, then `acquire`, `pixels` and `submit` for each frame, and ``close()`` at the end.
    ``document`` contains the engine table; without one, call `apply`. ``spare_slots`` are slots for frames
    that are being decoded, besides those that keep the engines busy; one of them is for a shadow run.
    ``number`` is the number of this worker, which posts its work in flight to ``shared_status``, so that all
    workers know the load of each engine.
    """

    def __init__(
        self,
        document: SharedDocument | None = None,
        *,
        spare_slots: int = 5,
        number: int = 0,
        shared_status: SharedStatus | None = None,
    ) -> None:
        self._table_reader = TableReader(document) if document is not None else None
        self._spare_slots = spare_slots
        self._number = number
        self._shared_status = shared_status
        self.rings = RingPool()
        self.rings.on_dropped = self._detach
        self._work = work_in_flight(shared_status, number)
        #: The table that was applied last.
        self.table = EngineTable(0, ())
        self._epochs = itertools.count(1)
        self._current = Generation(self.table, next(self._epochs), self, number, self._work)
        #: Generation to which the worker changes over as soon as its engines are ready.
        self._next: Generation | None = None
        #: Every generation of which a ticket may be valid, by its epoch.
        self._generations = {self._current.epoch: self._current}
        self._order = StreamOrder()
        self._deadline: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._started = False
        #: What the current generation serves, all its engines together. Empty until the first engine is
        #: ready, and kept while none is.
        self.models: dict[str, ServedModel] = {}
        #: Whether frames can be submitted now.
        self.ready = False
        #: Called on the event loop with the slot of an engine that sent a message that does not parse, so
        #: that its process must be replaced.
        self.on_refused: Callable[[int], None] = lambda _slot: None
        #: Called on the event loop when ``ready`` changes.
        self.on_change: Callable[[bool], None] = lambda _ready: None
        #: Called on the event loop with the versions whose model is another one now, after ``models`` has
        #: changed.
        self.on_models: Callable[[set[str]], None] = lambda _versions: None

    @property
    def on_ring(self) -> Callable[[FrameRing], None]:
        """Called on the event loop with each new ring, before its first ticket."""
        return self.rings.on_ring

    @on_ring.setter
    def on_ring(self, call: Callable[[FrameRing], None]) -> None:
        self.rings.on_ring = call

    @property
    def free_slots(self) -> int:
        """Ring slots that can be acquired now."""
        return self.rings.current.free if self.rings.current is not None else 0

    @property
    def engines(self) -> tuple[EngineConnection, ...]:
        """Connections to the engines of the current generation, ready or not."""
        return self._current.engines

    async def start(self) -> None:
        """Start connecting, and return at once."""
        self._started = True
        self._current.start()
        self.refresh()

    async def close(self) -> None:
        """Close all connections. Frames in flight end with InferenceLost."""
        if self._deadline is not None:
            self._deadline.cancel()
        generations = [*self._generations.values(), *([self._next] if self._next is not None else [])]
        for generation in generations:
            await generation.close()
        await asyncio.gather(*self._closing)
        self._order.end_all()
        self.rings.close()

    # -- frames --------------------------------------------------------------------------------------

    def acquire(self, answered: Callable[[Result | InferenceLost], None]) -> Ticket:
        """Take a slot. Raises InferenceUnavailable when no engine is ready, RingFull when all are taken."""
        ring = self.rings.current
        if not self.ready or ring is None:
            raise InferenceUnavailable("no inference process is ready")
        current = self._current
        ticket = Ticket(ring, current.epoch, answered)
        current.open += 1
        return ticket

    def release(self, ticket: Ticket) -> None:
        """Give back a slot that was never submitted."""
        self.ended(ticket)

    def pixels(self, ticket: Ticket, model: ModelInfo) -> npt.NDArray[np.uint8]:
        """Return the ticket's slot as a uint8 array (input height, input width, 3). Any thread may call."""
        return ticket.ring.pixels(ticket.slot, model.input_width, model.input_height)

    def submit(
        self,
        ticket: Ticket,
        model: ServedModel,
        params: DetectionParams,
        *,
        stream: int,
        interactive: bool,
        deadline: float,
        client: int = 0,
        weight: float = 1.0,
    ) -> None:
        """Submit the filled slot, which this object owns from now on. Only the event loop may call.

        The planner charges the run to the flow of ``client``, which has this ``weight`` against others. The
        ticket's ``answered`` is called exactly once, on the event loop, with a Result or InferenceLost.
        """
        generation = self._generations.get(ticket.epoch)
        if generation is None or not generation.usable:
            self.ended(ticket)
            ticket.answered(InferenceLost("the inference process went away before the frame was submitted"))
            return
        if generation.replaced:
            self._order.add((stream,))
        elif stream in self._order.late:
            again = partial(self.submit, ticket, model, params, stream=stream, interactive=interactive)
            self._order.hold(stream, partial(again, deadline=deadline, client=client, weight=weight))
            return
        engine = (
            generation.usable[0] if generation.alone else generation.choose(ticket, stream, model.version)
        )
        engine.submit(ticket, model.version, params, stream, interactive, deadline, client, weight)

    def cancel(self, ticket: Ticket) -> None:
        """Request that the planner drops an item that has not started.

        The item is answered in any case, perhaps as CANCELLED.
        """
        generation = self._generations.get(ticket.epoch)
        if generation is not None and ticket.engine >= 0:
            generation.engine_in(ticket.engine).cancel(ticket)

    # -- engine table --------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Apply the engine table if it has changed. This costs little if it has not."""
        table = self._table_reader.read_changed() if self._table_reader is not None else None
        if table is not None:
            self.apply(table)

    def apply(self, table: EngineTable) -> None:
        """Change over to the engines of ``table``, which may be those that serve already.

        The present generation serves until every new engine has announced its models, and then finishes the
        frames that were begun for it. Call this on the event loop, or before :meth:`start`.
        """
        known = self._current.table
        self.table = table
        if self._next is not None:
            if table.generation == self._next.table.generation:
                return
            self._abandon(self._next)
            self._next = None
        if table.generation == known.generation and table.engines == known.engines:
            return
        new = Generation(table, next(self._epochs), self, self._number, self._work)
        if self._started:
            new.start()
        if self.ready:
            self._next = new
        else:
            self._switch(new)

    def _switch(self, new: Generation) -> None:
        """Serve a generation from now on: all new frames are decoded for its models."""
        old, self._current, self._next = self._current, new, None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._generations[new.epoch] = new
        old.replaced = True
        self._order.add(stream for engine in old.engines for stream in engine.streams)
        if not old.open:
            self._end(old)
        self._update()
        if self._shared_status is not None:
            self._shared_status.post_worker(self._number, "generation", new.table.generation)

    def _switch_if_ready(self) -> None:
        new = self._next
        if new is None or not new.usable:
            return
        if len(new.usable) == len(new.engines) or not self.ready:
            self._switch(new)
        elif self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(SWITCH_S, self._switch_late, new)

    def _switch_late(self, new: Generation) -> None:
        self._deadline = None
        if new is self._next and new.usable:
            self._switch(new)

    def _end(self, generation: Generation) -> None:
        """Close the connections of a generation in which no frame is any more."""
        self._generations.pop(generation.epoch, None)
        self._run(generation.close())

    def _abandon(self, generation: Generation) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._run(generation.close())

    def _run(self, closing: Coroutine[Any, Any, None]) -> None:
        if not self._started:
            closing.close()
            return
        task = asyncio.get_running_loop().create_task(closing)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # -- what connections report ---------------------------------------------------------------------

    def greeted(self, engine: EngineConnection) -> FrameRing:
        """Return the ring for an engine that has announced its models. Raises WireError if too large."""
        generation = self._of(engine)
        if generation is None:
            raise WireError("a handshake of an engine that is not used any more")
        announced = generation.announced()
        sizes = [(m.in_flight, m.info) for models in announced for m in models.values()]
        slots, slot_bytes = ring_size(sizes, self._spare_slots)
        if generation is self._current:
            return self.rings.resize(slots, slot_bytes)
        # Both generations use the ring for a moment, so it fits the larger one.
        return self.rings.enlarge(slots, slot_bytes)

    def changed(self, engine: EngineConnection) -> None:
        """Use an engine that is ready, or stop using one that is not any more."""
        generation = self._of(engine)
        if generation is None:
            return
        had = bool(generation.usable)
        generation.update()
        if had and not generation.usable:
            self._lose(generation)
        if generation is self._current:
            self._update()
        self._switch_if_ready()

    def ended(self, ticket: Ticket) -> None:
        """Release the slot of a frame that is not in flight any more."""
        self.rings.release(ticket.ring, ticket.slot)
        generation = self._generations.get(ticket.epoch)
        if generation is None:
            return
        generation.open -= 1
        if ticket.work_s:
            generation.forget(ticket)
        if generation.replaced:
            if not generation.open:
                self._end(generation)
            if ticket.stream:
                self._order.ended(ticket.stream)

    def refused(self, engine: EngineConnection) -> None:
        """Report an engine that cannot be trusted any more."""
        self.on_refused(engine.entry.slot)

    def _of(self, engine: EngineConnection) -> Generation | None:
        """Return the generation of a connection; None if it has ended."""
        for generation in (self._current, self._next, *self._generations.values()):
            if generation is not None and engine in generation.engines:
                return generation
        return None

    def _lose(self, generation: Generation) -> None:
        """Let no frame that was decoded for lost engines run on later ones: their models may differ."""
        if self._generations.pop(generation.epoch, None) is None:
            return
        generation.open = 0
        generation.epoch = next(self._epochs)
        if generation.replaced:
            self._run(generation.close())
        else:
            self._generations[generation.epoch] = generation

    def _detach(self, ring: FrameRing) -> None:
        for generation in (*self._generations.values(), self._next):
            for engine in generation.engines if generation is not None else ():
                engine.detach(ring)

    def _update(self) -> None:
        """Publish what the current generation can do now."""
        current = self._current
        ready = bool(current.usable)
        changed: set[str] = set()
        if ready:
            before, self.models = self.models, current.models()
            changed = changed_versions(before, self.models) if before else changed
        was, self.ready = self.ready, ready
        if changed:
            self.on_models(changed)
        if ready is not was:
            self.on_change(ready)
