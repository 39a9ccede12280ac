"""Frames that no client waits for run only while nothing else does, and count for nobody."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from inference.core.detection_params import DetectionParams
from inference.core.detections import NO_BOXES
from inference.core.errors import InferenceFailed, InferenceLost
from inference.ipc.ring import FrameRing
from inference.ipc.wire import Kind, Result, Status, Submit, pack_result, unpack_cancel, unpack_submit
from streamer.accounting.metrics import WorkerMetrics
from streamer.decoding.decode_job import Work
from streamer.decoding.decoder_pool import DecoderPool
from streamer.decoding.messages import Answer, Verdict
from streamer.imaging.image_header import Limits
from streamer.scheduling.admission import Admission
from streamer.scheduling.clients import Caller, Client, Clients
from streamer.scheduling.crash_suspects import Suspects
from streamer.scheduling.dispatcher import Dispatcher
from streamer.scheduling.idle_runs import STREAM, Interrupted
from streamer.scheduling.job import Job, Prediction
from tests.helpers.hostile_child import HostileChild
from tests.unit.images import encode, scene
from tests.unit.test_dispatcher import FakeDecoders, NothingBlocked

IMAGE = encode(scene())


class OptionalDecoders(FakeDecoders):
    """Decoders that finish at once, unless the test holds their work back."""

    def __init__(self) -> None:
        self.idle = 2
        self.any_ring: FrameRing | None = None
        self.held: list[Work] | None = None

    def attach(self, ring: FrameRing) -> None:
        self.any_ring = ring

    def submit_optional(self, work: Work) -> bool:
        if self.held is None:
            self.submit(self.any_ring, work)
        else:
            self.held.append(work)
        return True


class Video:
    """A decoded frame."""

    width, height, nbytes = 64, 48, 64 * 48 * 3

    def pixels(self) -> npt.NDArray[np.uint8]:
        return np.zeros((48, 64, 3), np.uint8)

    def grey(self) -> npt.NDArray[np.uint8]:
        return np.zeros((48, 64), np.uint8)


class Rig:
    """Holds a dispatcher and a stand-in for the inference process."""

    def __init__(self, child: HostileChild) -> None:
        self.child, self.decoders, metrics = child, OptionalDecoders(), WorkerMetrics()
        self.admission = Admission(metrics, ("v1",), Clients("secret"), queue_max=8, queue_s=5.0, min_fps=5.0)
        self.dispatcher = Dispatcher(
            child.client,
            metrics,
            Limits(),
            decoders=cast("DecoderPool", self.decoders),
            suspects=Suspects(NothingBlocked()),
            admission=self.admission,
            interactive_share=0.25,
            versions=("v1",),
        )
        self.runs = self.dispatcher.idle_runs
        self.outcomes: list[Prediction | Exception] = []

    def job(self, data: Any = IMAGE) -> Job:
        deadline = time.monotonic() + 300
        return Job(data, 0, DetectionParams(), deadline, STREAM, self.outcomes.append, Limits())

    def post(self) -> asyncio.Task[Prediction]:
        deadline, caller = time.monotonic() + 300, Caller(Client("a", 1), 1)
        return asyncio.create_task(self.dispatcher.predict("v1", IMAGE, DetectionParams(), deadline, caller))

    async def take(self) -> Submit:
        return unpack_submit(await self.child.receive())

    def answer(self, submit: Submit, status: Status = Status.OK) -> None:
        self.child.send(pack_result(Result(submit.request_id, status, NO_BOXES, 1.0, 1.0, 1.0, 1)))

    async def outcome(self) -> Prediction | Exception:
        """Wait until the run has ended, and return its outcome."""
        async with asyncio.timeout(60):
            while not self.outcomes:
                await asyncio.sleep(0.001)
        return self.outcomes.pop()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    child = HostileChild()
    found = Rig(child)
    async with child:
        await found.dispatcher.start()
        await child.greet()
        yield found
        await found.dispatcher.close()


@pytest.mark.parametrize("data", [IMAGE, Video()])
async def test_a_frame_runs_at_the_lowest_priority_and_counts_for_no_client(rig: Rig, data: Any) -> None:
    free = rig.child.client.free_slots
    assert rig.runs.start("v1", rig.job(data))
    submit = await rig.take()
    assert (submit.shadow, submit.interactive, submit.client, submit.stream) == (True, False, 0, STREAM)
    assert rig.dispatcher._versions["v1"].idle, "streams and POSTs see nothing of it"
    rig.answer(submit)
    outcome = await rig.outcome()
    assert isinstance(outcome, Prediction)
    assert outcome.width == 64
    assert (rig.runs.running, rig.child.client.free_slots) == (False, free)
    ledger = rig.admission._ledgers["v1"]
    assert (ledger.received, ledger.inferred, ledger.in_flight) == (0, 0, 0)
    assert rig.dispatcher._versions["v1"].load.frames == 0


async def test_nothing_starts_beside_other_work_or_without_a_model_or_idle_decoders(rig: Rig) -> None:
    assert not rig.runs.start("v2", rig.job())
    rig.decoders.idle = 1
    assert not rig.runs.start("v1", rig.job())
    rig.decoders.idle = 2
    task = rig.post()
    submit = await rig.take()
    assert not rig.runs.start("v1", rig.job())
    rig.answer(submit)
    await task
    assert rig.runs.start("v1", rig.job())
    assert not rig.runs.start("v1", rig.job()), "one at a time"


async def test_an_image_of_a_client_ends_the_run(rig: Rig) -> None:
    assert rig.runs.start("v1", rig.job())
    shadow = await rig.take()
    task = rig.post()
    cancelled = await rig.child.receive()
    assert cancelled[0] == Kind.CANCEL
    assert unpack_cancel(cancelled) == shadow.request_id
    submit = await rig.take()
    assert not submit.shadow
    rig.answer(shadow, Status.CANCELLED)
    assert isinstance(await rig.outcome(), Interrupted)
    rig.answer(submit)
    await task


async def test_a_frame_that_is_decoded_when_a_client_comes_is_not_submitted(rig: Rig) -> None:
    rig.decoders.held = []
    free = rig.child.client.free_slots
    assert rig.runs.start("v1", rig.job())
    task = rig.post()
    submit = await rig.take()
    assert not submit.shadow
    (work,) = rig.decoders.held
    work.done(Answer(Verdict.DONE, 0, 64, 64, cpu_ms=1.0))
    assert isinstance(await rig.outcome(), Interrupted)
    rig.answer(submit)
    await task
    assert rig.child.client.free_slots == free


async def test_after_a_death_of_the_process_nothing_runs_for_a_while(rig: Rig) -> None:
    assert rig.runs.start("v1", rig.job())
    submit = await rig.take()
    ring = rig.decoders.any_ring
    assert ring is not None
    ring.mark(submit.slot, executing=True)
    await rig.child.accept()
    await rig.child.greet()
    assert isinstance(await rig.outcome(), InferenceLost)
    assert not rig.runs.start("v1", rig.job())
    rig.runs._not_before = 0.0
    assert rig.runs.start("v1", rig.job())
    assert isinstance(await rig.outcome(), InferenceFailed), "these bytes may have been the cause"


async def test_a_failed_decode_gives_the_slot_back(rig: Rig) -> None:
    rig.decoders.held = []
    free = rig.child.client.free_slots
    assert rig.runs.start("v1", rig.job())
    (work,) = rig.decoders.held
    work.done(InferenceFailed("damaged"))  # type: ignore[arg-type]
    assert isinstance(await rig.outcome(), InferenceFailed)
    assert rig.child.client.free_slots == free
