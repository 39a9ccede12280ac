"""Posts the worker's heartbeat to the shared status, and reads from there which processes are alive."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Literal, Protocol

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from inference.ipc.shared_status import EngineStatus, Presence, SharedStatus, State
from streamer.accounting.metrics import WorkerMetrics
from streamer.core.byte_budget import ByteBudget
from streamer.core.free_memory import CAN_RETURN_MEMORY, return_free_memory
from streamer.scheduling.queue_pressure import STAGGER_S, QueuePressure

#: A process without a heartbeat for this time is reported as silent. The supervisor waits for at least as
#: long before it kills a process.
SILENT_S = 2.5
#: If the inference process and the supervisor have both had no heartbeat for this time, no process will
#: restart them.
ABANDONED_S = 10.0
ProcessState = Literal["ok", "starting", "restarting", "silent", "off"]
_STATES: dict[Presence, ProcessState] = {
    Presence.OFF: "off",
    Presence.STARTING: "starting",
    Presence.SERVING: "ok",
    Presence.DOWN: "restarting",
    Presence.HUNG: "silent",
}


class ProcessStates(TypedDict):
    """The state of each process of this replica; `silent` means that it has stopped responding."""

    supervisor: Annotated[ProcessState, Field(description="The process that starts and watches the others.")]
    inference: Annotated[ProcessState, Field(description="The process that runs the models.")]
    workers: Annotated[list[ProcessState], Field(description="The processes that answer requests.")]
    observer: Annotated[
        ProcessState, Field(description="The sampling process, which keeps images and detects drift.")
    ]


class Liveness:
    """Derives the state of each process from the shared status. Times are CLOCK_MONOTONIC seconds."""

    def __init__(self, shared_status: SharedStatus) -> None:
        self._shared_status = shared_status

    @property
    def inference_hangs(self) -> bool:
        """Whether there are engines that are ready, and none of them answers."""
        ready = [engine for engine in self._shared_status.engines if engine.state is State.READY]
        return bool(ready) and all(map(hangs, ready))

    @property
    def abandoned(self) -> bool:
        """Whether all engines hang, and the supervisor, which should kill them, hangs too."""
        now = time.monotonic()
        beat = max(engine.read("heartbeat") for engine in self._shared_status.engines)
        return (
            self.inference_hangs
            and now - beat > ABANDONED_S
            and now - self._shared_status.read("supervisor_beat") > ABANDONED_S
        )

    @property
    def saturated(self) -> bool:
        """Whether every worker that serves has reported that its queue of POSTs stays full."""
        numbers = range(int(self._shared_status.read("workers")))
        serving = [n for n in numbers if self._shared_status.read_worker(n, "presence") == Presence.SERVING]
        return bool(serving) and all(self._shared_status.read_worker(n, "saturated") for n in serving)

    def describe(self) -> ProcessStates:
        """Return the state of each process."""
        return {
            "supervisor": self._by_beat(self._shared_status.read("supervisor_beat")),
            "inference": self._inference(),
            "workers": [self._worker(number) for number in range(int(self._shared_status.read("workers")))],
            "observer": self._sampling_process(),
        }

    def reasons(self) -> list[str]:
        """Return a sentence for each process that is missing or silent."""
        states = self.describe()
        named = {"the supervisor": states["supervisor"], "the sampling process": states["observer"]}
        named |= {f"worker {number}": word for number, word in enumerate(states["workers"])}
        found = [f"{name} does not answer" for name, word in named.items() if word == "silent"]
        found += [
            f"{name} has ended and is being started again"
            for name, word in named.items()
            if word == "restarting"
        ]
        changed = 0
        for engine in self._shared_status.engines:
            changed |= int(engine.read("models_changed"))
        found += [
            f"the file of model {index + 1} has changed or gone since the start; a copy is served"
            for index in range(changed.bit_length())
            if changed >> index & 1
        ]
        if self._shared_status.read("dying"):
            found.append("processes keep dying")
        return found

    def _inference(self) -> ProcessState:
        if self.inference_hangs:
            return "silent"
        if self._shared_status.state is State.READY:
            return "ok"
        return (
            "restarting"
            if self._shared_status.state is State.DOWN or self._shared_status.read("restarts")
            else "starting"
        )

    def _worker(self, number: int) -> ProcessState:
        presence = _presence(self._shared_status.read_worker(number, "presence"))
        if presence is Presence.SERVING:
            return self._by_beat(self._shared_status.read_worker(number, "beat"))
        return _STATES[presence]

    def _sampling_process(self) -> ProcessState:
        presence = _presence(self._shared_status.read("sampling_presence"))
        if presence is Presence.SERVING:
            return self._by_beat(self._shared_status.read("sampling_beat"))
        return _STATES[presence]

    def _by_beat(self, beat: float) -> ProcessState:
        """Return ok or silent; without any heartbeat ok, because a worker may run without a supervisor."""
        return "silent" if beat and time.monotonic() - beat > SILENT_S else "ok"


def hangs(engine: EngineStatus) -> bool:
    """Return whether an engine that is ready does not answer."""
    now = time.monotonic()
    return engine.hung(now) or now - engine.read("heartbeat") > SILENT_S


def _presence(value: float) -> Presence:
    return Presence(int(value)) if 0 <= value < len(Presence) else Presence.STARTING


#: Interval of heartbeats. Each one wakes a core; bench/idle.py measures the cost.
BEAT_S = 1.0
#: Interval at which a starting worker checks whether it can serve.
READY_CHECK_S = 0.1
#: A full garbage collection that takes no longer than this causes no noticeable delay, so it never waits.
SHORT_S = 0.05
#: Minimum interval between collections that take up to `MODERATE_S`, or that follow a peak of bodies and
#: messages.
MODERATE_INTERVAL_S = 60.0
MODERATE_S = 0.15
#: Minimum interval between all other, longer collections.
LONG_INTERVAL_S = 600.0
#: A full collection is due after this many collections of the middle generation, as in the interpreter.
_MIDDLE = 10
_NEVER = 1 << 30
#: After at least the first number of bytes was held at a time, memory is returned to the system as soon as at
#: most the second number is held.
_PEAK_BYTES = 8 << 20
_OVER_BYTES = 1 << 20


async def beat(
    shared_status: SharedStatus,
    number: int,
    metrics: WorkerMetrics,
    budget: ByteBudget,
    fullness: Callable[[], float],
    measure_load: Callable[[float], None],
) -> None:
    """Post the worker's heartbeat and metrics until cancelled, and return unused memory.

    The supervisor kills a worker whose heartbeat stops. ``fullness`` returns the used share of the queue of
    POSTs, 0 to 1. ``measure_load`` is called with the time in monotonic seconds.
    """
    pressure = QueuePressure(lambda: random.uniform(0, STAGGER_S))  # noqa: S311 - not for cryptography
    loop = asyncio.get_running_loop()
    memory = MemoryTrimmer(budget)
    collector = GcScheduler(loop.time())
    returning: asyncio.Future[None] | None = None
    while True:
        shared_status.post_worker(number, "beat", loop.time())
        due = loop.time() + BEAT_S
        await asyncio.sleep(BEAT_S)
        shared_status.post_worker(number, "saturated", pressure.observe(fullness(), loop.time()))
        metrics.loop_lag_s.observe(max(0.0, loop.time() - due))
        measure_load(loop.time())
        tasks = len(asyncio.all_tasks(loop))
        metrics.tasks.set(tasks)
        for kind, count in budget.by_kind().items():
            metrics.buffered_bytes.labels(kind).set(count)
        peak_over = memory.due()
        if collector.due(loop.time(), tasks, after_peak=peak_over):
            # After a peak, a collection is needed because a connection that was cut off leaves its body in a
            # reference cycle of an exception and stack frames.
            collector.collect(loop.time(), tasks)
        if peak_over and (returning is None or returning.done()):
            # This is not awaited, because the heartbeat must not wait for a free thread.
            returning = loop.run_in_executor(None, memory.return_pages)


class _Serving(Protocol):
    @property
    def serves(self) -> bool:
        """Whether this worker answers requests."""


def announce_ready(
    shared_status: SharedStatus, number: int, health: _Serving
) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return a context that posts that worker ``number`` is ready as soon as the worker answers requests."""

    async def announce() -> None:
        while not health.serves:
            await asyncio.sleep(READY_CHECK_S)
        shared_status.post_worker(number, "ready", 1.0)

    async def lifetime(_app: web.Application) -> AsyncIterator[None]:
        announcing = asyncio.create_task(announce(), name="announce-ready")
        yield
        announcing.cancel()

    return lifetime


class GcScheduler:
    """Decides when to run a full garbage collection, which takes long with thousands of streams.

    The interpreter would run one whenever the number of surviving objects has grown by a quarter. With 2,000
    streams, each takes 0.1 s of processor time. WebSocket and HTTP connections leave no reference cycles when
    they end, so waiting costs little memory. WebRTC sessions leave some, so a cheap collection does not wait.
    The interpreter still collects the younger generations.
    """

    def __init__(self, now: float) -> None:
        gc.set_threshold(700, 10, _NEVER)
        self._last_at = now
        #: Processor time of the last collection, and the number of tasks at that time, which is a measure of
        #: the number of live objects.
        self._cost_s = 0.0
        self._tasks = 1

    def due(self, now: float, tasks: int, *, after_peak: bool) -> bool:
        """Return whether to collect now.

        ``tasks`` is the number of tasks in the event loop. ``after_peak`` says whether a peak of bodies and
        messages has just passed.
        """
        if gc.get_count()[2] < _MIDDLE and not after_peak:
            return False
        cost_s = self._cost_s * max(1.0, tasks / self._tasks)
        if cost_s <= SHORT_S:
            return True
        pause_s = MODERATE_INTERVAL_S if after_peak or cost_s <= MODERATE_S else LONG_INTERVAL_S
        return now - self._last_at >= pause_s

    def collect(self, now: float, tasks: int) -> None:
        """Run a full collection."""
        begun = time.thread_time()
        gc.collect()
        self._cost_s, self._tasks, self._last_at = time.thread_time() - begun, max(1, tasks), now


class MemoryTrimmer:
    """Returns free pages to the system after a peak of bodies and messages; the allocator would keep them.

    Does nothing with an allocator other than glibc's.
    """

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._peak_bytes = 0

    def due(self) -> bool:
        """Return True once after each large peak of held bytes has passed; call this once a second."""
        held_bytes = self._budget.held_bytes
        self._peak_bytes = max(self._peak_bytes, self._budget.take_peak())
        if not CAN_RETURN_MEMORY or self._peak_bytes < _PEAK_BYTES or held_bytes > _OVER_BYTES:
            return False
        self._peak_bytes = 0
        return True

    def return_pages(self) -> None:
        """Return free pages to the system; this takes milliseconds."""
        return_free_memory()
