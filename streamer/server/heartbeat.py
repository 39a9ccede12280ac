"""The worker's heartbeat in the shared status. Each beat also measures the loop and looks after memory."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import random
import time
from collections.abc import Callable

from inference.ipc.shared_status import SharedStatus
from streamer.accounting.metrics import WorkerMetrics
from streamer.core.byte_budget import ByteBudget
from streamer.scheduling.queue_pressure import STAGGER_S, QueuePressure

#: Each beat wakes a core: bench/idle.py.
BEAT_S = 1.0
#: A full collection that takes no longer than this delays nothing noticeably.
CHEAP_S = 0.05
#: Interval of collections that take up to `BEARABLE_S`, and of those after a peak of bodies and messages.
SOMETIMES_S = 60.0
BEARABLE_S = 0.15
#: Interval of all longer collections.
RARELY_S = 600.0
#: As in the interpreter: a full collection is due after this many collections of the middle generation.
_MIDDLE = 10
_NEVER = 1 << 30
#: Memory is returned after a peak of at least the first number of bytes, once no more than the second is
#: held.
_PEAK_BYTES = 8 << 20
_OVER_BYTES = 1 << 20


async def beat(
    shared_status: SharedStatus,
    number: int,
    metrics: WorkerMetrics,
    budget: ByteBudget,
    fullness: Callable[[], float],
) -> None:
    """Beat until cancelled; the supervisor kills a worker whose heartbeat stops.

    ``fullness`` returns the share of the queue of POSTs that is taken.
    """
    pressure = QueuePressure(lambda: random.uniform(0, STAGGER_S))  # noqa: S311 - not for cryptography
    loop = asyncio.get_running_loop()
    memory = MemoryReturn(budget)
    collector = Collector(loop.time())
    returning: asyncio.Future[None] | None = None
    while True:
        shared_status.post_worker(number, "beat", loop.time())
        due = loop.time() + BEAT_S
        await asyncio.sleep(BEAT_S)
        shared_status.post_worker(number, "saturated", pressure.observe(fullness(), loop.time()))
        metrics.loop_lag_s.observe(max(0.0, loop.time() - due))
        tasks = len(asyncio.all_tasks(loop))
        metrics.tasks.set(tasks)
        for kind, count in budget.by_kind().items():
            metrics.buffered_bytes.labels(kind).set(count)
        peak_over = memory.due()
        if collector.due(loop.time(), tasks, after_peak=peak_over):
            # A connection that was cut off leaves its body in a reference cycle of exception and frames.
            collector.collect(loop.time(), tasks)
        if peak_over and (returning is None or returning.done()):
            # Not awaited: the heartbeat must not wait for a free thread.
            returning = loop.run_in_executor(None, memory.return_pages)


class Collector:
    """Decides when to run a full garbage collection, which takes long with thousands of streams.

    The interpreter would run one whenever a quarter more objects have survived: 0.1 s of processor time with
    2,000 streams. WebSocket and HTTP connections leave no reference cycles when they end, so waiting costs
    little; WebRTC sessions do, so a cheap collection does not wait. Younger generations stay automatic.
    """

    def __init__(self, now: float) -> None:
        gc.set_threshold(700, 10, _NEVER)
        self._last_at = now
        #: Processor time of the last collection, and the number of tasks then: a measure of the live objects.
        self._cost_s = 0.0
        self._tasks = 1

    def due(self, now: float, tasks: int, *, after_peak: bool) -> bool:
        """Whether to collect now, with this number of ``tasks``; ``after_peak``: much memory was released."""
        if gc.get_count()[2] < _MIDDLE and not after_peak:
            return False
        cost_s = self._cost_s * max(1.0, tasks / self._tasks)
        if cost_s <= CHEAP_S:
            return True
        pause_s = SOMETIMES_S if after_peak or cost_s <= BEARABLE_S else RARELY_S
        return now - self._last_at >= pause_s

    def collect(self, now: float, tasks: int) -> None:
        """Run a full collection."""
        begun = time.thread_time()
        gc.collect()
        self._cost_s, self._tasks, self._last_at = time.thread_time() - begun, max(1, tasks), now


class MemoryReturn:
    """Returns free pages to the system after a peak of bodies and messages; the allocator would keep them.

    Does nothing with an allocator other than glibc's.
    """

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._peak_bytes = 0
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def due(self) -> bool:
        """Whether a peak is over; call it once a second."""
        held_bytes = self._budget.held_bytes
        self._peak_bytes = max(self._peak_bytes, self._budget.take_peak())
        if self._trim is None or self._peak_bytes < _PEAK_BYTES or held_bytes > _OVER_BYTES:
            return False
        self._peak_bytes = 0
        return True

    def return_pages(self) -> None:
        """Return free pages; takes milliseconds."""
        if self._trim is not None:
            self._trim(0)
