"""Posted images get the right outcome without a model, past a deadline, or if the inference process dies."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from inference.core.detection_params import DetectionParams
from inference.core.detections import NO_BOXES
from inference.ipc.ring import FrameRing
from inference.ipc.wire import Result, Status, Submit, pack_result, unpack_submit
from streamer.accounting.metrics import WorkerMetrics
from streamer.decoding.decode_job import Work
from streamer.decoding.decoder_pool import DecoderPool
from streamer.decoding.messages import Answer, Verdict
from streamer.imaging.image_header import Limits
from streamer.scheduling.admission import Admission
from streamer.scheduling.clients import Caller, Client, Clients
from streamer.scheduling.crash_suspects import Suspects
from streamer.scheduling.dispatcher import Dispatcher
from streamer.scheduling.errors import DeadlineExceeded, SchedulingError, Unavailable, UnknownVersion
from streamer.scheduling.job import Job, Prediction
from tests.helpers.hostile_child import HostileChild
from tests.unit.images import encode, scene

IMAGE = encode(scene())


class FakeDecoders:
    """Decoders that finish at once, with an image that no test looks at."""

    size = 2

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass

    def attach(self, ring: FrameRing) -> None:
        pass

    def submit(self, ring: FrameRing | None, work: Work) -> None:
        asyncio.get_running_loop().call_soon(work.done, Answer(Verdict.DONE, 0, 64, 64, cpu_ms=1.0))


class NothingBlocked:
    def contains(self, data: bytes | memoryview) -> bool:
        return False

    def add(self, data: bytes | memoryview) -> None:
        pass


class Rig:
    """Holds a dispatcher, to which the test posts images, and a stand-in for the inference process."""

    def __init__(self, child: HostileChild) -> None:
        self.child = child
        metrics = WorkerMetrics()
        self.admission = Admission(metrics, ("v1",), Clients("secret"), queue_max=8, queue_s=5.0, min_fps=5.0)
        self.dispatcher = Dispatcher(
            child.client,
            metrics,
            Limits(),
            decoders=cast("DecoderPool", FakeDecoders()),
            suspects=Suspects(NothingBlocked()),
            admission=self.admission,
            interactive_share=0.25,
            versions=("v1",),
        )
        child.client.on_change = lambda ready: self.dispatcher.pump_all() if ready else None

    def post(self) -> asyncio.Task[Prediction]:
        deadline, caller = time.monotonic() + 30, Caller(Client("a", 1), 1)
        return asyncio.create_task(self.dispatcher.predict("v1", IMAGE, DetectionParams(), deadline, caller))

    async def take(self) -> Submit:
        """Return the frame that the inference process gets next."""
        return unpack_submit(await self.child.receive())

    async def die(self) -> None:
        """End the inference process and start another one."""
        await self.child.accept()
        await self.child.greet()

    def outcomes(self) -> tuple[int, int, dict[Any, int]]:
        ledger = self.admission._ledgers["v1"]
        assert ledger.in_flight == 0
        assert self.dispatcher._versions["v1"].idle
        return ledger.inferred, ledger.failed, dict(ledger.dropped)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    child = HostileChild()
    found = Rig(child)
    async with child:
        await found.dispatcher.start()
        yield found
        await found.dispatcher.close()


async def refusal(task: asyncio.Task[Prediction]) -> SchedulingError:
    with pytest.raises(SchedulingError) as caught:
        await task
    return caught.value


async def test_a_version_is_unknown_or_not_loaded_yet(rig: Rig) -> None:
    with pytest.raises(UnknownVersion, match="'v9'"):
        rig.dispatcher.served("v9")
    with pytest.raises(Unavailable, match="loaded"):
        rig.dispatcher.served("v1")
    await rig.child.greet()
    assert rig.dispatcher.served("v1").version == "v1"


async def test_an_image_that_a_process_took_with_it_runs_again(rig: Rig) -> None:
    await rig.child.greet()
    task = rig.post()
    await rig.take()
    await rig.die()
    submit = await rig.take()
    rig.child.send(pack_result(Result(submit.request_id, Status.OK, NO_BOXES, 1.0, 1.0, 1.0, 1)))
    assert (await task).width == 64
    assert rig.outcomes() == (1, 0, {})


async def test_an_image_that_two_processes_took_with_them_has_failed(rig: Rig) -> None:
    await rig.child.greet()
    task = rig.post()
    for _ in range(2):
        await rig.take()
        await rig.die()
    assert isinstance(await refusal(task), Unavailable)
    assert rig.outcomes() == (0, 1, {})


async def test_an_image_whose_deadline_has_passed_at_its_turn_is_stale(rig: Rig) -> None:
    await rig.child.greet()
    task = rig.post()
    submit = await rig.take()
    rig.child.send(pack_result(Result(submit.request_id, Status.EXPIRED, NO_BOXES)))
    assert isinstance(await refusal(task), DeadlineExceeded)
    assert rig.outcomes() == (0, 0, {"stale": 1})


async def test_what_waits_at_the_end_is_unavailable(rig: Rig) -> None:
    await rig.child.greet()
    await rig.child.accept()  # the next process has connected, but is not ready
    while rig.child.client.ready:
        await asyncio.sleep(0)
    task = rig.post()
    await asyncio.sleep(0)
    await rig.dispatcher.close()
    assert isinstance(await refusal(task), Unavailable)
    assert rig.outcomes() == (0, 1, {})


async def test_an_answered_image_is_not_left_to_the_garbage_collector(rig: Rig) -> None:
    """An image may take 8 MB, and a reference cycle would keep it until the next full collection."""
    await rig.child.greet()
    gc.collect()
    gc.disable()
    try:
        task = rig.post()
        submit = await rig.take()
        rig.child.send(pack_result(Result(submit.request_id, Status.OK, NO_BOXES, 1.0, 1.0, 1.0, 1)))
        await task
        await asyncio.sleep(0)
        assert [each for each in gc.get_objects() if isinstance(each, Job)] == []
    finally:
        gc.enable()
