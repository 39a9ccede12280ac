"""Promise R1b: a run counts as hung when it lasts ten times as long as recent slow runs, not the warm-up."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np

from inference.core.detection_params import DetectionParams
from inference.core.errors import InferenceLost
from inference.core.run_limit import HISTORY, HUNG_MIN_S, MIN_RUNS, RunLimit
from inference.engine.loop import Loop
from inference.engine.metrics import InferenceMetrics
from inference.ipc import unix_socket as address
from inference.ipc.engine_set import EngineSet
from inference.ipc.engine_table import EngineTable
from inference.ipc.shared_status import SharedStatus
from inference.ipc.wire import Result
from inference.models.model import ModelInfo
from tests.helpers.hostile_child import MODEL


def limit(*costs_s: dict[int, float], sharing: float = 1.0) -> RunLimit:
    return RunLimit(costs_s, sharing=sharing)


def test_until_enough_has_run_the_slowest_run_of_the_warm_up_counts() -> None:
    found = limit({1: 0.1, 4: 0.3}, {1: 0.5}, sharing=2.0)
    assert found.seconds == 10.0
    for _ in range(MIN_RUNS - 1):
        found.observe(1, 1, 0.005)
    assert found.seconds == 10.0


def test_a_quick_model_has_two_seconds() -> None:
    assert limit({1: 0.001}).seconds == HUNG_MIN_S


def test_runs_that_became_slower_raise_it() -> None:
    found = limit({1: 0.3})
    for _ in range(2 * MIN_RUNS):
        found.observe(0, 1, 0.9)
    assert round(found.seconds, 6) == 9.0


def test_a_warm_up_beside_a_busy_neighbour_does_not_hold_it_up_for_good() -> None:
    found = limit({1: 2.0})
    assert found.seconds == 20.0
    for _ in range(2 * MIN_RUNS):
        found.observe(0, 1, 0.3)
    assert round(found.seconds, 6) == 3.0


def test_the_largest_batch_keeps_its_time_while_only_single_frames_run() -> None:
    found = limit({1: 0.01, 8: 0.6})
    for _ in range(2 * MIN_RUNS):
        found.observe(0, 1, 0.01)
    assert round(found.seconds, 6) == 6.0


def test_a_batch_between_two_sizes_counts_as_the_larger_one() -> None:
    found = limit({8: 0.6, 1: 0.01})
    for _ in range(2 * MIN_RUNS):
        found.observe(0, 3, 0.6)
    assert round(found.seconds, 6) == 6.0


def test_one_slow_run_in_two_hundred_does_not_raise_it() -> None:
    found = limit({1: 0.3})
    for number in range(HISTORY):
        found.observe(0, 1, 2.9 if number % 200 == 0 else 0.3)
    assert round(found.seconds, 6) == 3.0


def test_runs_that_are_slow_for_good_do_not_raise_it_without_end() -> None:
    found = limit({1: 0.3})
    for _ in range(2 * HISTORY):
        found.observe(0, 1, 0.95 * found.seconds)
    assert found.seconds == 30.0


class QuickNow:
    """A detector whose runs took 1 s each during warm-up and take no time while it serves."""

    def __init__(self) -> None:
        self.model = ModelInfo.from_dict(MODEL)
        self.cost_s = {1: 1.0}

    def infer(self, frames: Any, *, thread: int, single: bool = False, switch: Any = None) -> Any:
        return frames

    def postprocess(self, raw: Any, index: int, params: DetectionParams) -> Any:
        return np.zeros((0, 6), np.float32)

    def release_above(self, size: int) -> None:
        pass

    def rehearse(self, thread: int) -> None:
        pass


async def run_many(loop_address: str, count: int) -> None:
    client = EngineSet()
    client.apply(EngineTable.of_one(loop_address))
    await client.start()
    while not client.ready:
        await asyncio.sleep(0.01)
    for stream in range(1, count + 1):
        answers: list[Result | InferenceLost] = []
        ticket, deadline = client.acquire(answers.append), time.monotonic() + 60
        client.submit(
            ticket,
            client.models["v1"],
            DetectionParams(),
            stream=stream,
            interactive=True,
            deadline=deadline,
        )
        while not answers:
            await asyncio.sleep(0)
    await client.close()


def test_the_loop_posts_the_limit_that_its_runs_suggest() -> None:
    listener, shared_status = address.listen(), SharedStatus().engine(0)
    loop = Loop(
        {"v1": QuickNow()},
        listener,
        shared_status,
        inference_threads=1,
        parallel=1,
        prefetch_depth=2,
        interactive_share=0.25,
        metrics=InferenceMetrics(),
    )
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        asyncio.run(asyncio.wait_for(run_many(address.address_of(listener), 1), 60))
        assert shared_status.read("run_limit_s") == 10.0
        until = time.monotonic() + 60
        # On a busy machine some runs last long; more runs follow until these are few among all.
        while shared_status.read("run_limit_s") != HUNG_MIN_S and time.monotonic() < until:
            asyncio.run(asyncio.wait_for(run_many(address.address_of(listener), MIN_RUNS), 60))
        assert shared_status.read("run_limit_s") == HUNG_MIN_S
    finally:
        loop.stop()
        thread.join(60)
        for connection in (listener, loop._wake_reader, loop._wake_writer):
            connection.close()
        for worker in loop._connections.values():
            worker.socket.close()
