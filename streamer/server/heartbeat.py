"""The worker's heartbeat on the board, and what it measures with each beat: lateness, bytes, the queue."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from inference.ipc.shared_status import Board
from streamer.accounting.metrics import WorkerMetrics
from streamer.core.byte_budget import ByteBudget
from streamer.core.garbage_collection import Collector
from streamer.scheduling.queue_pressure import STAGGER_S, QueuePressure
from streamer.server.memory_return import MemoryReturn

#: Each beat wakes a core: bench/idle.py.
BEAT_S = 1.0


async def beat(
    board: Board, number: int, metrics: WorkerMetrics, budget: ByteBudget, fullness: Callable[[], float]
) -> None:
    """Beat until cancelled: a loop that does not turn is killed by the supervisor, which reads the board.

    ``fullness`` returns which share of the queue of POSTs is taken.
    """
    pressure = QueuePressure(lambda: random.uniform(0, STAGGER_S))  # noqa: S311 - not for cryptography
    loop = asyncio.get_running_loop()
    memory = MemoryReturn(budget)
    collector = Collector(loop.time())
    giving: asyncio.Future[None] | None = None
    while True:
        board.post_worker(number, "beat", loop.time())
        due = loop.time() + BEAT_S
        await asyncio.sleep(BEAT_S)
        board.post_worker(number, "saturated", pressure.observe(fullness(), loop.time()))
        metrics.loop_lag_s.observe(max(0.0, loop.time() - due))
        tasks = len(asyncio.all_tasks(loop))
        metrics.tasks.set(tasks)
        for kind, count in budget.by_kind().items():
            metrics.buffered_bytes.labels(kind).set(count)
        over = memory.due()
        if collector.due(loop.time(), tasks, after_peak=over):
            # A connection that was cut off leaves its body in a cycle of exception and frames.
            collector.collect(loop.time(), tasks)
        if over and (giving is None or giving.done()):
            # Not awaited: the beat must not wait for a free thread.
            giving = loop.run_in_executor(None, memory.give_back)
