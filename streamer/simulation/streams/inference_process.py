"""Stands in for the inference process: the planner of the service, and runs that take given times."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial

from inference.core.detection_params import DetectionParams
from inference.core.detections import NO_BOXES
from inference.core.errors import InferenceLost, RingFull
from inference.core.single_frame import WORTHWHILE_GAIN, SingleFrameChoice
from inference.core.warmup import worthwhile_buckets
from inference.engine.items import Batch, Item
from inference.engine.planner import Planner
from inference.ipc.engine_connection import Ticket
from inference.ipc.served_model import ServedModel
from inference.ipc.wire import Result, Status, Submit
from inference.models.model import Family, ModelInfo, Placement
from streamer.simulation.streams.processor import Processor, Threads
from streamer.simulation.streams.scenario import Machine

#: Part of the time of a frame, besides its run, that the reading thread takes; the rest is post-processing.
READING_SHARE = 1 / 3
#: Time between two searches for items past their deadline (`inference.engine.loop.BEAT_S`).
_BEAT_S = 0.25
#: Slots of a worker's ring besides those of the frames in flight (`inference.ipc.engine_set`).
_SPARE_SLOTS = 4


def varied(mean_s: float, deviation: float, rng: random.Random) -> float:
    """Return a random time of this mean and relative standard deviation, at least half the mean."""
    return mean_s * max(0.5, rng.gauss(1.0, deviation)) if deviation else mean_s


class _Slots:
    """Stands in for the frame ring of a worker, of which only the number of slots matters."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count))

    def acquire(self) -> int:
        """Return a free slot. Raises RingFull."""
        if not self._free:
            raise RingFull("no slot is free")
        return self._free.pop()

    def release(self, slot: int) -> None:
        """Give a slot back."""
        self._free.append(slot)


class InferenceProcess:
    """Executes the frames of all workers, as `inference.engine.loop` does, with run times of a table."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        machine: Machine,
        cores: Processor,
        device: Processor,
        rng: random.Random,
        interactive_share: float,
    ) -> None:
        cost_s = machine.run_times.cost_s
        self._loop = loop
        self._machine = machine
        self._cores = cores
        self._device = device
        self._rng = rng
        self._cost_s = cost_s
        self._planner = Planner({0: cost_s}, parallel=machine.parallel, interactive_share=interactive_share)
        self._idle = machine.threads
        self._reader = Threads(cores)
        self._clients: dict[int, EngineSet] = {}
        self._beat: asyncio.TimerHandle | None = None
        one_core_ms, all_cores_ms = machine.run_times.cost_ms[min(cost_s)], machine.run_times.all_cores_ms
        self._all_cores_s = None if machine.accelerator or all_cores_ms is None else all_cores_ms / 1e3
        self._single = SingleFrameChoice(
            all_cores=all_cores_ms is not None and one_core_ms >= all_cores_ms * WORTHWHILE_GAIN
        )
        #: Number of frames by the size of their batch.
        self.batches: dict[int, int] = {}
        self.model = ServedModel(
            0,
            "v1",
            ModelInfo(
                "simulated",
                "0" * 64,
                Family.YOLO,
                ("object",),
                640,
                640,
                Placement.CENTRED,
                114,
                "cuda" if machine.accelerator else "cpu",
                tuple(cost_s),
            ),
            {size: cost * 1e3 for size, cost in cost_s.items()},
            machine.prefetch_depth * worthwhile_buckets(cost_s)[-1],
            machine.parallel,
            machine.threads,
        )

    def connect(self, deliver: Callable[[Callable[[], None]], None]) -> EngineSet:
        """Return the connection of one more worker, which gets each answer through ``deliver``."""
        client = EngineSet(len(self._clients) + 1, self, deliver)
        self._clients[client.number] = client
        return client

    def submit(self, worker: int, submit: Submit) -> None:
        """Take a frame of a worker."""

        def read() -> None:
            self._planner.add(Item(worker, submit, self._loop.time()))
            self._start_runs()
            if self._beat is None:
                self._beat = self._loop.call_later(_BEAT_S, self._expire)

        self._reader.submit(self._machine.post_s * READING_SHARE, read)

    def cancel(self, worker: int, request_id: int) -> None:
        """Take back a frame whose run has not started."""
        item = self._planner.cancel(worker, request_id)
        if item is not None:
            self._answer(item, Result(request_id, Status.CANCELLED, NO_BOXES))

    # -- runs ----------------------------------------------------------------------------------------

    def _expire(self) -> None:
        """Answer the items past their deadline; called regularly while there are items."""
        self._beat = None
        self._answer_late()
        if self._planner.waiting or self._idle < self._machine.threads:
            self._beat = self._loop.call_later(_BEAT_S, self._expire)

    def _answer_late(self) -> None:
        for item in self._planner.expire(self._loop.time()):
            self._answer(item, Result(item.submit.request_id, Status.EXPIRED, NO_BOXES))

    def _start_runs(self, *, awake: bool = False) -> None:
        """Let each idle thread take a batch; one of them may be ``awake``: it has just ended a run."""
        while self._idle:
            self._answer_late()
            batch = self._planner.next()
            if batch is None:
                return
            self._idle -= 1
            if awake:
                self._run(batch)
            else:
                self._cores.wake(partial(self._run, batch))
            awake = False

    def _run(self, batch: Batch) -> None:
        started, count = self._loop.time(), len(batch.items)
        self.batches[count] = self.batches.get(count, 0) + count
        bucket = min(size for size in self._cost_s if size >= count)
        number = self._single.enter()
        all_cores_s = self._all_cores_s if batch.single and bucket == min(self._cost_s) else None
        if all_cores_s is None or not self._single.next():
            ended = partial(self._ran, batch, started, None if all_cores_s is None else number, False)
            self._device.run(self._varied(self._cost_s[bucket]), ended)
            return
        # One run occupies all cores for this time, so each core has a piece of this length.
        left, work_s = [self._machine.cores], self._varied(all_cores_s)

        def piece_done() -> None:
            left[0] -= 1
            if not left[0]:
                self._ran(batch, started, number, True)

        for _ in range(self._machine.cores):
            self._device.run(work_s, piece_done)

    def _varied(self, mean_s: float) -> float:
        return varied(mean_s, self._machine.run_jitter, self._rng)

    def _ran(self, batch: Batch, started: float, number: int | None, all_cores: bool) -> None:
        """Post-process the frames of a batch one after the other; each is answered as soon as it is ready."""
        ran_s = self._loop.time() - started
        if number is not None and self._single.is_last(number):
            self._single.ran(ran_s, all_cores=all_cores)
        post_s = self._machine.post_s * (1.0 - READING_SHARE)

        def post_processed(index: int) -> None:
            item = batch.items[index]
            self._answer(
                item,
                Result(
                    item.submit.request_id,
                    Status.OK,
                    NO_BOXES,
                    queue_ms=(started - item.arrived) * 1e3,
                    inference_ms=ran_s * 1e3,
                    postprocess_ms=post_s * 1e3,
                    batch_size=len(batch.items),
                ),
            )
            if index + 1 < len(batch.items):
                self._cores.run(post_s, partial(post_processed, index + 1))
                return
            self._planner.done(batch, self._loop.time() - started)
            self._idle += 1
            self._start_runs(awake=True)

        self._cores.run(post_s, partial(post_processed, 0))

    def _answer(self, item: Item, result: Result) -> None:
        self._clients[item.worker].resolve(result)


class EngineSet:
    """Stands in for `inference.ipc.engine_set.EngineSet` in one worker."""

    def __init__(
        self, number: int, process: InferenceProcess, deliver: Callable[[Callable[[], None]], None]
    ) -> None:
        self.number = number
        self.ready = True
        self.models = {"v1": process.model}
        self.on_ring: Callable[[object], None] = lambda _ring: None
        self._process = process
        self._deliver = deliver
        self._slots = _Slots(process.model.in_flight + _SPARE_SLOTS)
        self._pending: dict[int, Ticket] = {}
        self._submitted = 0

    def acquire(self, answered: Callable[[Result | InferenceLost], None]) -> Ticket:
        """Take a slot. Raises RingFull."""
        return Ticket(self._slots, 1, answered)  # type: ignore[arg-type]  # a ring without pixels

    def release(self, ticket: Ticket) -> None:
        """Give back a slot that was never submitted."""
        self._slots.release(ticket.slot)

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
        """Submit the slot; the ticket's ``answered`` is called once."""
        self._submitted += 1
        ticket.request_id = self._submitted
        self._pending[ticket.request_id] = ticket
        self._process.submit(
            self.number,
            Submit(
                ticket.request_id,
                ticket.slot,
                model.index,
                interactive,
                stream,
                deadline,
                params,
                client,
                weight,
                ticket.alone,
            ),
        )

    def cancel(self, ticket: Ticket) -> None:
        """Request that an item that has not started is dropped."""
        if ticket.request_id in self._pending:
            self._process.cancel(self.number, ticket.request_id)

    def resolve(self, result: Result) -> None:
        """Deliver the answer of the inference process to the worker."""

        def answered() -> None:
            ticket = self._pending.pop(result.request_id)
            self.release(ticket)
            ticket.answered(result)

        self._deliver(answered)
