"""Runs a scenario in virtual time, and finds the largest number of streams that a machine holds."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable, Sequence

import numpy as np
import simplejpeg

from streamer.accounting.ledger import Ledger
from streamer.simulation.streams.camera import Camera, PostRecord, Posts, StreamRecord
from streamer.simulation.streams.inference_process import InferenceProcess
from streamer.simulation.streams.processor import Processor, Threads, core_speed, device_speed
from streamer.simulation.streams.report import Report, Usage, summarise
from streamer.simulation.streams.scenario import Scenario
from streamer.simulation.streams.virtual_loop import BEGIN_S, run_virtually
from streamer.simulation.streams.worker import Claims, Worker

#: Virtual seconds after the last capture in which the outcomes of the last frames arrive.
DRAIN_S = 12.0
_STEPS = 50

#: Called with what is done and its share, 0 to 1.
Progress = Callable[[str, float], None]


def simulate(scenario: Scenario, progress: Progress | None = None) -> Report:
    """Run a scenario and return what was observed."""
    begun = time.perf_counter()
    collecting = gc.isenabled()
    gc.disable()  # nothing that grows is cyclic, and the collector would look at all streams again and again
    try:
        report = run_virtually(_Simulation(scenario, progress or (lambda _text, _share: None)).run())
    finally:
        if collecting:
            gc.enable()
    report.real_s = time.perf_counter() - begun
    return report


class _Simulation:
    def __init__(self, scenario: Scenario, progress: Progress) -> None:
        self._scenario = scenario
        self._progress = progress

    async def run(self) -> Report:
        scenario, loop = self._scenario, asyncio.get_running_loop()
        machine = scenario.machine
        speed = core_speed(machine.cores, machine.core_efficiency, machine.idle_cores)
        cores = Processor(loop, speed, machine.wake_up_s)
        device = Processor(loop, device_speed(machine.gain)) if machine.accelerator else cores
        inference = InferenceProcess(
            loop, machine, cores, device, self._rng("runs"), scenario.settings.interactive_share
        )
        claims = Claims()
        workers = [
            Worker(
                loop,
                machine,
                scenario.settings,
                cores,
                inference,
                claims,
                scenario.cameras.size,
                self._rng(f"worker-{number}"),
            )
            for number in range(machine.workers)
        ]
        for worker in workers:
            await worker.dispatcher.start()
        begin = loop.time() + scenario.cameras.ramp_s + scenario.settle_s
        measured = begin, begin + scenario.seconds
        cameras = self._start_cameras(workers, cores, measured)
        posts = self._start_posts(workers, measured)
        await self._pass_time(begin, "settling")
        usage = Usage(cores, device, [worker.events for worker in workers], loop.time())
        await self._pass_time(measured[1], "measuring")
        used = usage.measured(loop.time(), machine)
        await self._pass_time(loop.time() + DRAIN_S, "draining")
        for worker in workers:
            await worker.dispatcher.close()
        ledger = _total(
            [camera.connection.flow.ledger for camera in cameras if camera.connection is not None]
        )
        return summarise(
            scenario,
            [camera.record for camera in cameras],
            posts,
            ledger,
            used,
            inference.batches,
        )

    def _rng(self, name: str) -> random.Random:
        """Return a source of chance of its own, so that one part does not change what another draws."""
        return random.Random(f"{self._scenario.seed}/{name}")  # noqa: S311 - reproducible, not secret

    async def _pass_time(self, until: float, what: str) -> None:
        loop, scenario = asyncio.get_running_loop(), self._scenario
        total_s = scenario.cameras.ramp_s + scenario.settle_s + scenario.seconds + DRAIN_S
        step_s = (until - loop.time()) / _STEPS
        for _ in range(_STEPS):
            await asyncio.sleep(step_s)
            self._progress(f"{scenario.mix}: {what}", min(1.0, (loop.time() - BEGIN_S) / total_s))

    def _start_cameras(
        self, workers: Sequence[Worker], cores: Processor, measured: tuple[float, float]
    ) -> list[Camera]:
        scenario, loop = self._scenario, asyncio.get_running_loop()
        settings, machine = scenario.cameras, scenario.machine
        payload = blank_image(settings.size)
        client = (Threads(cores), machine.client_s) if machine.client_s else None
        rates = [group.fps for group in scenario.mix.groups for _ in range(group.count)]
        # Streams of all rates connect in mixed order, as they would.
        self._rng("order").shuffle(rates)
        cameras = []
        for number, fps in enumerate(rates):
            owner = number % settings.clients if settings.clients else number
            camera = Camera(
                workers[number % len(workers)],
                f"client-{owner}",
                StreamRecord(fps),
                settings,
                payload,
                measured,
                self._rng(f"camera-{number}"),
                client,
            )
            loop.call_later(settings.ramp_s * number / len(rates), camera.connect)
            cameras.append(camera)
        return cameras

    def _start_posts(self, workers: list[Worker], measured: tuple[float, float]) -> PostRecord:
        scenario = self._scenario
        if not scenario.cameras.posts_per_s:
            return PostRecord()
        posts = Posts(
            workers,
            scenario.cameras,
            blank_image(scenario.cameras.size),
            measured,
            scenario.settings.request_timeout_s,
            self._rng("posts"),
        )
        posts.start()
        return posts.record


def blank_image(size: tuple[int, int]) -> bytes:
    """Return a JPEG of this width and height. The scheduler reads its header; nothing decodes it."""
    width, height = size
    encoded: bytes = simplejpeg.encode_jpeg(np.zeros((height, width, 3), np.uint8), colorspace="BGR")
    return encoded


def _total(ledgers: Sequence[Ledger]) -> Ledger:
    total = Ledger()
    for ledger in ledgers:
        total.received += ledger.received
        total.inferred += ledger.inferred
        total.failed += ledger.failed
        total.dropped.update(ledger.dropped)
    return total
