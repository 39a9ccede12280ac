"""The inference loop: carries frames from the workers' rings through the models and answers.

One thread reads the workers' messages; ``lanes`` threads each take a batch from the planner, run it and
answer directly. Post-processing is done by one lane at a time: two threads of many tiny numpy calls
fight for the GIL and are half as fast as one.
"""

from __future__ import annotations

import array
import itertools
import logging
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from inference.core.detection_params import DetectionParams
from inference.core.detections import NO_BOXES, Boxes
from inference.core.errors import WireError
from inference.core.run_limit import RunLimit
from inference.engine.memory_relief import MemoryRelief, exit_if_device_lost
from inference.engine.planner import Batch, Item, Planner
from inference.ipc import unix_socket as address
from inference.ipc import wire
from inference.ipc.ring import FrameRing
from inference.ipc.shared_status import SharedStatus, State
from inference.ipc.wire import Kind, Result, Status
from inference.models.model import ModelInfo
from inference.telemetry.metrics import InferenceMetrics

log = logging.getLogger("inference.loop")

#: The heart beats at least this often while there is work; also the latest an expired item is noticed while
#: lanes are busy.
BEAT_S = 0.25
#: And this often while there is none: each beat wakes a core (bench/idle.py).
IDLE_BEAT_S = 1.0


class Detects(Protocol):
    """The part of a detector that the loop uses."""

    model: ModelInfo
    cost_s: dict[int, float]

    def infer(self, frames: Sequence[npt.NDArray[np.uint8]], *, lane: int, wide: bool = False) -> Any:
        """Run 1 to max-bucket frames."""

    def postprocess(self, raw: Any, index: int, params: DetectionParams) -> Boxes:
        """Return the boxes of one item of a run."""

    def release_above(self, size: int) -> None:
        """Give back what batches of more than ``size`` frames took."""

    def rehearse(self, lane: int) -> None:
        """Run every batch size once in a lane of its own."""


@dataclass(slots=True)
class _Connection:
    """A worker's socket. The loop's reading thread owns it; lanes only send."""

    #: Never used again: frames of a worker that has gone may still be running when the next one connects.
    number: int
    socket: socket.socket
    #: None until the worker has attached its memory.
    ring: FrameRing | None = None
    #: Answers that did not fit into the socket; bounded by the worker's slots.
    outbox: deque[bytes] = field(default_factory=deque)
    lock: threading.Lock = field(default_factory=threading.Lock)
    assembler: wire.TextAssembler = field(default_factory=wire.TextAssembler)
    closed: bool = False


class Loop:
    """Serves the given detectors to every worker that connects, until :meth:`stop`."""

    def __init__(
        self,
        detectors: dict[str, Detects],
        listener: socket.socket,
        shared_status: SharedStatus,
        *,
        lanes: int,
        parallel: int,
        ahead: int,
        interactive_share: float,
        metrics: InferenceMetrics,
    ) -> None:
        self._versions = tuple(detectors)
        self._detectors = tuple(detectors.values())
        self._listener = listener
        self._status = shared_status
        self._metrics = metrics
        self._turn = threading.Condition()
        self._planner = Planner(
            {index: detector.cost_s for index, detector in enumerate(self._detectors)},
            parallel=parallel,
            interactive_share=interactive_share,
        )
        self._relief = MemoryRelief(detectors.values(), self._planner, self._turn, spare_lane=lanes)
        self._run_limit = RunLimit([d.cost_s for d in self._detectors], sharing=lanes / parallel)
        #: Series by version index; kept, because looking labels up costs more than counting.
        self._batch_sizes = tuple(metrics.batch_size.labels(version) for version in detectors)
        self._run_s = tuple(metrics.run_s.labels(version) for version in detectors)
        self._postprocessing = threading.Lock()
        self._connections: dict[int, _Connection] = {}
        self._numbers = itertools.count(1)
        self._selector = selectors.DefaultSelector()
        self._busy_since = [0.0] * lanes
        self._stopping = False
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._handshake = {
            "versions": [
                {
                    "version": version,
                    "model": detector.model.to_dict(),
                    "cost_ms": {str(bucket): cost * 1e3 for bucket, cost in detector.cost_s.items()},
                }
                for version, detector in detectors.items()
            ],
            "parallel": parallel,
            "lanes": lanes,
            "ahead": ahead,
        }

    def run(self) -> None:
        """Serve until :meth:`stop`; the caller's thread reads, the lanes run in threads of their own."""
        self._listener.setblocking(False)
        self._wake_reader.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._flush_all)
        lanes = [
            threading.Thread(target=self._lane, args=(number,), name=f"lane-{number}", daemon=True)
            for number in range(len(self._busy_since))
        ]
        for lane in lanes:
            lane.start()
        busy = self._beat()
        self._status.post("state", State.READY)
        while not self._stopping:
            for key, events in self._selector.select(BEAT_S if busy else IDLE_BEAT_S):
                handler = key.data
                if isinstance(handler, _Connection):
                    self._serve(handler, events)
                else:
                    handler()
            busy = self._beat()
        with self._turn:
            self._turn.notify_all()
        for lane in lanes:
            lane.join(timeout=self._run_limit.seconds)

    def stop(self) -> None:
        """Make :meth:`run` return; safe in a signal handler."""
        self._stopping = True
        self._wake_writer.send(b"w")

    def _beat(self) -> bool:
        """Post the loop's status; returns whether anything runs or waits."""
        now = time.monotonic()
        self._relief.restore_due(now)
        with self._turn:
            late = self._planner.expire(now)
            busy = [since for since in self._busy_since if since]
            waiting = self._planner.waiting
        for item in late:
            self._answer(item, Result(item.submit.request_id, Status.EXPIRED, NO_BOXES))
        self._status.post("run_limit_s", self._run_limit.seconds)
        self._status.post("busy_since", min(busy, default=0.0))
        self._status.post("heartbeat", now)
        return bool(busy or waiting)

    def _accept(self) -> None:
        try:
            connected, _ = self._listener.accept()
        except OSError:  # withdrawn before it was accepted
            return
        if not address.is_own_user(connected):
            log.warning("refused a connection from another user")
            connected.close()
            return
        address.enlarge(connected)
        connected.setblocking(False)
        connection = _Connection(next(self._numbers), connected)
        self._connections[connection.number] = connection
        self._selector.register(connected, selectors.EVENT_READ, connection)
        for part in wire.pack_text(Kind.HELLO, self._handshake):
            self._send(connection, part)

    def _serve(self, connection: _Connection, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush(connection)
        if not events & selectors.EVENT_READ:
            return
        try:
            self._read(connection)
        except WireError as error:
            log.error("closing a worker's connection: %s", error)  # noqa: TRY400 - its text says it all
            self._forget(connection)
        except OSError:
            self._forget(connection)

    def _read(self, connection: _Connection) -> None:
        """Take in all that the worker has sent. Raises WireError or OSError when it cannot go on."""
        added = False
        while True:
            try:
                if connection.ring is None:
                    data, ancillary, _, _ = connection.socket.recvmsg(wire.MAX_MESSAGE_BYTES, 256)
                else:
                    data, ancillary = connection.socket.recv(wire.MAX_MESSAGE_BYTES), []
            except BlockingIOError:
                break
            if not data:
                self._forget(connection)
                break
            if data[0] == Kind.SUBMIT:
                added |= self._submit(connection, data)
            elif data[0] == Kind.CANCEL:
                self._cancel(connection, wire.unpack_cancel(data))
            elif data[0] == Kind.ATTACH:
                self._attach(connection, data, ancillary)
            else:
                raise WireError(f"unknown message kind {data[0]}")
        if added:
            with self._turn:
                self._turn.notify(self._planner.waiting)

    def _attach(self, connection: _Connection, data: bytes, ancillary: list[tuple[int, int, bytes]]) -> None:
        fds = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        try:
            message = connection.assembler.feed(data)
            if message is None or len(fds) != 1 or connection.ring is not None:
                raise WireError("an attach message carries exactly one descriptor, once")  # noqa: TRY301 - one place closes
            slots, slot_bytes = message.get("slots"), message.get("slot_bytes")
            if not isinstance(slots, int) or not isinstance(slot_bytes, int):
                raise WireError("an attach message names `slots` and `slot_bytes`")  # noqa: TRY301 - as above
        except WireError:
            for fd in fds:
                os.close(fd)
            raise
        connection.ring = FrameRing.attach(fds[0], slots, slot_bytes)

    def _submit(self, connection: _Connection, data: bytes) -> bool:
        submit = wire.unpack_submit(data)
        if connection.ring is None or submit.version >= len(self._detectors):
            raise WireError("a frame was submitted before its ring, or for an unknown version")
        model = self._detectors[submit.version].model
        connection.ring.pixels(submit.slot, model.input_width, model.input_height)  # checks the range
        item = Item(connection.number, submit, time.monotonic())
        with self._turn:
            self._planner.add(item)
        return True

    def _cancel(self, connection: _Connection, request_id: int) -> None:
        with self._turn:
            item = self._planner.cancel(connection.number, request_id)
        if item is not None:
            self._answer(item, Result(request_id, Status.CANCELLED, NO_BOXES))

    def _forget(self, connection: _Connection) -> None:
        """Close a worker's connection; what runs for it finishes and its answers are discarded."""
        if connection.closed:
            return
        connection.closed = True
        self._selector.unregister(connection.socket)
        with self._turn:
            self._planner.forget_worker(connection.number)
        with connection.lock:
            del self._connections[connection.number]
            connection.socket.close()
        if connection.ring is not None:
            connection.ring.close()

    # -- lanes ---------------------------------------------------------------------------------------

    def _lane(self, number: int) -> None:
        while True:
            with self._turn:
                late = self._planner.expire(time.monotonic())
                batch = self._planner.next()
                while batch is None and not late and not self._stopping:
                    self._turn.wait()
                    late = self._planner.expire(time.monotonic())
                    batch = self._planner.next()
                started = time.monotonic()
                if batch is not None:
                    self._busy_since[number] = started
            if self._stopping:
                return
            for item in late:
                self._answer(item, Result(item.submit.request_id, Status.EXPIRED, NO_BOXES))
            if batch is None:
                continue
            try:
                self._execute(number, batch, started)
            finally:
                with self._turn:
                    self._busy_since[number] = 0.0
                    self._planner.done(batch, time.monotonic() - started)
                    # A stream of this batch may have become eligible: one item is this lane's own,
                    # more are another's. Waking a lane for nothing costs a quarter of a null model's time.
                    # After an item that executed alone, all lanes may go on.
                    waiting = self._planner.waiting
                    if waiting > 1:
                        self._turn.notify(waiting if batch.items[0].submit.alone else 1)

    def _execute(self, lane: int, batch: Batch, started: float) -> None:
        version = self._versions[batch.version]
        self._batch_sizes[batch.version].observe(len(batch.items))
        self._metrics.batches.labels(version, batch.reason).inc()
        try:
            self._run(lane, batch.version, batch.items, started, wide=batch.lone)
        except Exception as error:  # noqa: BLE001 - a model may raise anything; each item is answered
            exit_if_device_lost(error)
            starved = self._relief.reduce(batch.version, len(batch.items), error)
            if len(batch.items) == 1 and not starved:
                self._fail(batch.items[0], error)
                return
            log.warning("a batch of %d failed, running its items alone: %s", len(batch.items), error)
            for item in batch.items:
                try:
                    self._run(lane, batch.version, (item,), started, wide=False)
                except Exception as alone:  # noqa: BLE001 - as above
                    exit_if_device_lost(alone)
                    self._relief.failed_alone(batch.version, alone)
                    self._fail(item, alone)
                else:
                    self._relief.ran_alone(batch.version)

    def _run(self, lane: int, version: int, items: tuple[Item, ...], started: float, *, wide: bool) -> None:
        detector = self._detectors[version]
        model = detector.model
        served: list[tuple[Item, npt.NDArray[np.uint8]]] = []
        for item in items:
            connection = self._connections.get(item.worker)
            if connection is None or connection.ring is None:
                continue  # its worker went away meanwhile: nobody waits for it
            slot = item.submit.slot
            served.append((item, connection.ring.pixels(slot, model.input_width, model.input_height)))
            # Cleared with the answer. When this process dies meanwhile, the worker reads it.
            connection.ring.mark(slot, executing=True)
        if not served:
            return
        begun = time.perf_counter()
        raw = detector.infer([frame for _, frame in served], lane=lane, wide=wide)
        ran_s = time.perf_counter() - begun
        self._run_s[version].observe(ran_s)
        with self._postprocessing:
            self._run_limit.observe(version, len(served), ran_s)
            for index, (item, _) in enumerate(served):
                begun = time.perf_counter()
                try:
                    boxes = detector.postprocess(raw, index, item.submit.params)
                except Exception as error:  # noqa: BLE001 - others of this run have been answered already
                    self._fail(item, error)
                    continue
                self._answer(
                    item,
                    Result(
                        item.submit.request_id,
                        Status.OK,
                        boxes[: wire.MAX_DETECTIONS],
                        queue_ms=(started - item.arrived) * 1e3,
                        inference_ms=ran_s * 1e3,
                        postprocess_ms=(time.perf_counter() - begun) * 1e3,
                        batch_size=len(served),
                    ),
                )

    def _fail(self, item: Item, error: Exception) -> None:
        log.error("the model failed on one frame: %s", error)
        self._metrics.failures.labels(self._versions[item.submit.version]).inc()
        self._answer(item, Result(item.submit.request_id, Status.FAILED, NO_BOXES, detail=str(error)))

    # -- answers -------------------------------------------------------------------------------------

    def _answer(self, item: Item, result: Result) -> None:
        connection = self._connections.get(item.worker)
        if connection is not None:
            if connection.ring is not None:
                connection.ring.mark(item.submit.slot, executing=False)
            self._send(connection, wire.pack_result(result))

    def _send(self, connection: _Connection, message: bytes) -> None:
        """Send now, or as soon as the worker reads; never waits for a worker."""
        with connection.lock:
            if connection.closed:
                return
            if not connection.outbox:
                try:
                    connection.socket.send(message)
                except BlockingIOError:
                    pass
                except OSError:  # the reading thread sees the same and forgets the worker
                    return
                else:
                    return
            connection.outbox.append(message)
        self._wake_writer.send(b"w")

    def _flush_all(self) -> None:
        self._wake_reader.recv(4096)
        for connection in list(self._connections.values()):
            if connection.outbox:
                self._flush(connection)

    def _flush(self, connection: _Connection) -> None:
        with connection.lock:
            try:
                while connection.outbox:
                    connection.socket.send(connection.outbox[0])
                    connection.outbox.popleft()
            except BlockingIOError:
                pass
            except OSError:
                connection.outbox.clear()
            if connection.closed:
                return
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.outbox else 0)
            self._selector.modify(connection.socket, wanted, connection)
