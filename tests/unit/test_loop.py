"""Tests the inference loop when workers come and go, and when a model fails on one frame of a batch."""

from __future__ import annotations

import dataclasses
import math
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from inference.core.detection_params import DetectionParams
from inference.engine.items import Batch, BatchReason, Item
from inference.engine.loop import Loop
from inference.engine.metrics import InferenceMetrics
from inference.engine.worker_connection import WorkerConnection
from inference.ipc import unix_socket as address
from inference.ipc.ring import FrameRing
from inference.ipc.shared_status import SharedStatus
from inference.ipc.wire import (
    MAX_MESSAGE_BYTES,
    Kind,
    Result,
    Status,
    Submit,
    pack_submit,
    unpack_result,
)
from inference.models.model import ModelInfo
from tests.helpers.hostile_child import MODEL

BOX = [1.0, 2.0, 30.0, 40.0, 0.9, 1.0]


class FakeDetector:
    """Stands for a detector without a model; a test can set what it does in `postprocess`."""

    def __init__(self) -> None:
        self.model = ModelInfo.from_dict(MODEL)
        self.cost_s = {1: 0.001, 4: 0.002}
        #: Number of frames of each run.
        self.runs: list[int] = []
        self.on_postprocess: Callable[[Any], None] = lambda code: None
        #: What a run that can be ended early does.
        self.on_switch: Callable[[Any], None] = lambda switch: None

    def infer(self, frames: Any, *, thread: int, single: bool = False, switch: Any = None) -> Any:
        self.runs.append(len(frames))
        if switch is not None:
            self.on_switch(switch)
        return [int(frame[0, 0, 0]) for frame in frames]

    def postprocess(self, raw: Any, index: int, params: DetectionParams) -> Any:
        self.on_postprocess(raw[index])
        return np.asarray([BOX], np.float32) + raw[index]

    def release_above(self, size: int) -> None:
        pass

    def rehearse(self, thread: int) -> None:
        pass


class Rig:
    """Holds a loop that only the test drives: the test attaches workers and runs batches by method calls."""

    def __init__(self) -> None:
        self.detector = FakeDetector()
        self.listener = address.listen()
        self.loop = Loop(
            {"v1": self.detector},
            self.listener,
            SharedStatus().engine(0),
            inference_threads=1,
            parallel=1,
            prefetch_depth=2,
            interactive_share=0.25,
            metrics=InferenceMetrics(),
        )
        self._ends: list[socket.socket] = []

    def attach(self, number: int, *, ring: FrameRing | None = None) -> socket.socket:
        """Attach a worker and return its end of the connection."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.settimeout(60)
        self._ends += [ours, theirs]
        memory = FrameRing(8, 64 * 64 * 3) if ring is None else ring
        connection = WorkerConnection(number, ours, {0: memory})
        self.loop._connections[number] = connection
        self.loop._selector.register(ours, 1, connection)
        return theirs

    def connect(self) -> tuple[socket.socket, int]:
        """Connect a worker through the listener; return its end of the connection and its number."""
        worker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        worker.connect(bytes.fromhex(address.address_of(self.listener)))
        self.loop._accept()
        assert worker.recv(MAX_MESSAGE_BYTES)[0] == Kind.HELLO
        number, connection = max(self.loop._connections.items())
        connection.rings[0] = FrameRing(8, 64 * 64 * 3)
        self._ends += [worker, connection.socket]
        return worker, number

    def item(self, worker: int, request_id: int, *, slot: int = 0, colour: int = 0) -> Item:
        """Write a frame of one colour into a slot and return the item that a worker would submit for it."""
        ring = self.loop._connections[worker].rings[0]
        ring.pixels(slot, 64, 64)[:] = colour
        return Item(worker, Submit(request_id, slot, 0, True, 0, math.inf, DetectionParams()), 0.0)

    def send(self, worker: int, item: Item) -> None:
        """Handle the message in which a worker submits an item."""
        self.loop._submit(self.loop._connections[worker], pack_submit(item.submit))

    def turn(self) -> None:
        """Run the next batch, as an inference thread does."""
        with self.loop._lock:
            batch = self.loop._planner.next()
            assert batch is not None
            self.loop._executor.prepare(batch)
        self.loop._executor.execute(0, batch, time.monotonic())
        self.loop._planner.done(batch)

    def execute(self, *items: Item) -> None:
        """Run items as one batch, as an inference thread does."""
        self.loop._executor.execute(0, Batch(0, items, BatchReason.DRAINED, single=False), 0.0)

    def close(self) -> None:
        for end in (*self._ends, self.listener, self.loop._wake_reader, self.loop._wake_writer):
            end.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    found = Rig()
    yield found
    found.close()


def answers(worker: socket.socket) -> list[Result]:
    """Return the results that the loop has sent to a worker so far."""
    worker.setblocking(False)
    found: list[Result] = []
    while True:
        try:
            data = worker.recv(MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return found
        found.append(unpack_result(data))


def test_workers_that_vanish_while_a_batch_is_gathered_cost_the_others_no_answer(rig: Rig) -> None:
    class Leaving(FrameRing):
        """Removes worker 2 when the loop marks a slot of this ring as executing."""

        def mark(self, slot: int, *, executing: bool) -> None:
            super().mark(slot, executing=executing)
            if executing and 2 in rig.loop._connections:
                rig.loop._forget(rig.loop._connections[2])

    rig.attach(1)
    rig.attach(2)
    survivor = rig.attach(3, ring=Leaving(8, 64 * 64 * 3))
    items = [rig.item(1, 11), rig.item(2, 12), rig.item(3, 13, colour=5)]
    rig.loop._forget(rig.loop._connections[1])
    rig.execute(*items)
    (answer,) = answers(survivor)
    assert (answer.request_id, answer.status) == (13, Status.OK)
    assert answer.boxes[0].tolist() == pytest.approx([value + 5 for value in BOX])
    ring = rig.loop._connections[3].rings[0]
    assert not ring.executing(0)


def test_a_new_worker_gets_no_answer_of_one_that_has_gone(rig: Rig) -> None:
    rig.listener.setblocking(False)
    first, number = rig.connect()
    item = rig.item(number, 1)
    rig.loop._forget(rig.loop._connections[number])
    first.close()
    second, _ = rig.connect()  # its socket may get the descriptor number of the first
    rig.execute(item)  # a frame of the first worker, which was still in flight
    assert answers(second) == []


def test_a_frame_that_fails_after_the_run_costs_the_others_no_answer_and_no_second_one(rig: Rig) -> None:
    def fail(code: int) -> None:
        if code == 2:
            raise FloatingPointError("no boxes from this")

    rig.detector.on_postprocess = fail
    worker = rig.attach(1)
    rig.execute(*(rig.item(1, 10 + slot, slot=slot, colour=slot) for slot in range(4)))
    found = sorted((answer.request_id, answer.status) for answer in answers(worker))
    assert found == [(10, Status.OK), (11, Status.OK), (12, Status.FAILED), (13, Status.OK)]


def shadow(item: Item) -> Item:
    """Return the item as one for which no client waits."""
    return Item(item.worker, dataclasses.replace(item.submit, interactive=False, shadow=True), item.arrived)


def end(switch: Any) -> None:
    """Stand for onnxruntime, which raises when the switch is thrown."""
    assert switch.thrown
    raise RuntimeError("Exiting due to terminate flag being set to true.")


def test_a_shadow_run_that_nothing_interrupts_is_answered(rig: Rig) -> None:
    worker = rig.attach(1)
    rig.send(1, shadow(rig.item(1, 11)))
    rig.turn()
    (answer,) = answers(worker)
    assert (answer.request_id, answer.status, answer.batch_size) == (11, Status.OK, 1)


def test_an_item_of_any_worker_ends_a_shadow_run(rig: Rig) -> None:
    worker, other = rig.attach(1), rig.attach(2)
    arrived = rig.item(2, 22)

    def run(switch: Any) -> None:
        assert not switch.thrown
        rig.send(2, arrived)
        end(switch)

    rig.detector.on_switch = run
    rig.send(1, shadow(rig.item(1, 11)))
    rig.turn()
    assert [(answer.request_id, answer.status) for answer in answers(worker)] == [(11, Status.CANCELLED)]
    assert answers(other) == []
    ring = rig.loop._connections[1].rings[0]
    assert not ring.executing(0), "the frame is not suspected when the process dies later"
    rig.turn()
    assert [(answer.request_id, answer.status) for answer in answers(other)] == [(22, Status.OK)]


def test_its_worker_can_end_a_shadow_run_but_another_shadow_item_does_not(rig: Rig) -> None:
    worker = rig.attach(1)
    rig.attach(2)

    def run(switch: Any) -> None:
        rig.send(2, shadow(rig.item(2, 22)))
        rig.loop._cancel(rig.loop._connections[2], 11)
        assert not switch.thrown
        rig.loop._cancel(rig.loop._connections[1], 11)
        end(switch)

    rig.detector.on_switch = run
    rig.send(1, shadow(rig.item(1, 11)))
    rig.turn()
    assert [(answer.request_id, answer.status) for answer in answers(worker)] == [(11, Status.CANCELLED)]


def test_a_model_that_fails_in_a_shadow_run_is_told_from_an_interruption(rig: Rig) -> None:
    def fail(_: Any) -> None:
        raise RuntimeError("a broken model")

    worker = rig.attach(1)
    rig.detector.on_switch = fail
    rig.send(1, shadow(rig.item(1, 11)))
    rig.turn()
    (answer,) = answers(worker)
    assert (answer.status, answer.detail) == (Status.FAILED, "a broken model")
