"""S13, in the other direction: the inference loop disconnects a worker that lies, and serves the others."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from inference.core.detection_params import DetectionParams
from inference.core.errors import InferenceLost
from inference.engine.loop import Loop
from inference.engine.metrics import InferenceMetrics
from inference.ipc import unix_socket as address
from inference.ipc.engine_set import EngineSet
from inference.ipc.engine_table import EngineTable
from inference.ipc.ring import FrameRing
from inference.ipc.shared_status import SharedStatus
from inference.ipc.wire import (
    MAX_MESSAGE_BYTES,
    Kind,
    Result,
    Status,
    Submit,
    pack_cancel,
    pack_submit,
    pack_text,
)
from inference.models.model import ModelInfo
from tests.helpers.hostile_child import MODEL

NAN = math.nan
SOUND = [1.0, 2.0, 30.0, 40.0, 0.9, 1.0]


class FakeDetector:
    """Replaces the detector: it needs no model and finds the same box in each frame."""

    def __init__(self) -> None:

        self.model = ModelInfo.from_dict(MODEL)
        self.cost_s = {1: 0.001}

    def infer(self, frames: Any, *, thread: int, single: bool = False, switch: Any = None) -> Any:
        return [int(frame.max()) for frame in frames]

    def postprocess(self, raw: Any, index: int, params: DetectionParams) -> Any:
        return np.asarray([SOUND], np.float32)

    def release_above(self, size: int) -> None:
        pass

    def rehearse(self, thread: int) -> None:
        pass


@pytest.fixture
def loop_address() -> Iterator[str]:

    listener = address.listen()
    shared_status = SharedStatus().engine(0)
    loop = Loop(
        {"v1": FakeDetector()},
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
    yield address.address_of(listener)
    assert thread.is_alive(), "a worker's message ended the inference loop"
    loop.stop()
    thread.join(60)
    for connection in (listener, loop._wake_reader, loop._wake_writer):
        connection.close()
    for worker in loop._connections.values():
        worker.socket.close()


def attach(slots: object, slot_bytes: object) -> bytes:
    return pack_text(Kind.ATTACH, {"slots": slots, "slot_bytes": slot_bytes})[0]


def submit_bytes(
    slot: int = 0,
    version: int = 0,
    deadline: float | None = None,
    params: DetectionParams = DetectionParams(),  # noqa: B008 - frozen
) -> bytes:
    until = time.monotonic() + 60 if deadline is None else deadline
    return pack_submit(Submit(1, slot, version, True, 0, until, params))


HOSTILE_WORKER: dict[str, Callable[[], list[bytes | None]]] = {
    "an unknown kind": lambda: [b"\xff"],
    "one byte": lambda: [bytes([Kind.ATTACH])],
    "a nested attach": lambda: [bytes([Kind.ATTACH, 0]) + b"[" * 60_000],
    "a frame before its memory": lambda: [submit_bytes()],
    "a slot beyond the ring": lambda: [None, submit_bytes(slot=2)],
    "the largest slot": lambda: [None, submit_bytes(slot=2**32 - 1)],
    "an unknown version": lambda: [None, submit_bytes(version=9)],
    "NaN for a deadline": lambda: [None, submit_bytes(deadline=NAN)],
    "NaN for a threshold": lambda: [None, submit_bytes(params=DetectionParams(conf_threshold=NAN))],
    "half a frame": lambda: [None, submit_bytes()[:30]],
    "half a cancel": lambda: [None, pack_cancel(1)[:5]],
    "memory twice": lambda: [None, attach(2, 12288)],
    "no slots": lambda: [attach(0, 12288)],
    "slots of no bytes": lambda: [attach(2, 0)],
    "slots below 0": lambda: [attach(-2, -12288)],
    "slots that are no number": lambda: [attach("2", None)],
}


@pytest.mark.parametrize("name", HOSTILE_WORKER)
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_lies_is_disconnected_and_the_loop_goes_on(name: str, loop_address: str) -> None:
    ring = FrameRing(2, 12_288)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as worker:
        worker.settimeout(60)
        worker.connect(bytes.fromhex(loop_address))
        assert worker.recv(MAX_MESSAGE_BYTES)[0] == Kind.HELLO
        for message in HOSTILE_WORKER[name]():
            if message is None:
                socket.send_fds(worker, [attach(2, 12_288)], [ring.fd])
            elif message[0] == Kind.ATTACH and name != "memory twice":
                empty = os.memfd_create("empty", os.MFD_ALLOW_SEALING)
                socket.send_fds(worker, [message], [empty])
                os.close(empty)
            else:
                worker.send(message)
        with contextlib.suppress(ConnectionResetError):
            assert worker.recv(MAX_MESSAGE_BYTES) == b"", "it was not disconnected"
    honest = EngineSet()
    honest.apply(EngineTable.of_one(loop_address))

    async def serve_one() -> Result | InferenceLost:
        await honest.start()
        while not honest.ready:
            await asyncio.sleep(0.01)
        answers: list[Result | InferenceLost] = []
        ticket = honest.acquire(answers.append)
        honest.submit(
            ticket,
            honest.models["v1"],
            DetectionParams(),
            stream=1,
            interactive=True,
            deadline=time.monotonic() + 60,
        )
        while not answers:
            await asyncio.sleep(0.01)
        await honest.close()
        return answers[0]

    answer = asyncio.run(asyncio.wait_for(serve_one(), 60))
    assert isinstance(answer, Result)
    assert answer.status is Status.OK
    ring.close()
