"""Reads the messages of all workers, and has inference threads execute the batches that the planner forms.

One thread reads all messages. Each inference thread takes a batch from the planner, has `batch_executor` run
it, and sends the results itself.
"""

from __future__ import annotations

import itertools
import logging
import selectors
import socket
import threading
import time

from inference.core.detections import NO_BOXES
from inference.core.errors import WireError
from inference.core.run_limit import RunLimit
from inference.engine.batch_executor import BatchExecutor, SupportsInference
from inference.engine.items import Item
from inference.engine.memory_relief import MemoryRelief
from inference.engine.metrics import InferenceMetrics
from inference.engine.planner import Planner
from inference.engine.worker_connection import WorkerConnection
from inference.ipc import unix_socket as address
from inference.ipc import wire
from inference.ipc.shared_status import EngineStatus, State
from inference.ipc.wire import Kind, Result, Status

log = logging.getLogger("inference.loop")

#: Longest time between heartbeats while there is work. It is also the longest time until an expired item is
#: noticed while all inference threads are busy.
BEAT_S = 0.25
#: Longest time between heartbeats while there is no work, because each one wakes a core (bench/idle.py).
IDLE_BEAT_S = 1.0
#: Shortest time between heartbeats, because one for each frame would cost as much as reading the frame.
LEAST_BEAT_S = 0.1


class Loop:
    """Serves the given detectors to every worker that connects, until :meth:`stop`."""

    def __init__(
        self,
        detectors: dict[str, SupportsInference],
        listener: socket.socket,
        status: EngineStatus,
        *,
        inference_threads: int,
        parallel: int,
        prefetch_depth: int,
        interactive_share: float,
        metrics: InferenceMetrics,
    ) -> None:
        self._detectors = tuple(detectors.values())
        self._listener = listener
        self._status = status
        #: Guards the planner. Threads enter it directly: entering the condition takes four more calls.
        self._lock = threading.RLock()
        self._turn = threading.Condition(self._lock)
        self._planner = Planner(
            {index: detector.cost_s for index, detector in enumerate(self._detectors)},
            parallel=parallel,
            interactive_share=interactive_share,
        )
        self._relief = MemoryRelief(
            detectors.values(), self._planner, self._turn, spare_thread=inference_threads
        )
        self._run_limit = RunLimit([d.cost_s for d in self._detectors], sharing=inference_threads / parallel)
        self._connections: dict[int, WorkerConnection] = {}
        self._executor = BatchExecutor(
            detectors, self._connections, self._relief, self._run_limit, metrics, self._answer
        )
        self._numbers = itertools.count(1)
        self._selector = selectors.DefaultSelector()
        self._busy_since = [0.0] * inference_threads
        #: Time of the last heartbeat, in monotonic seconds.
        self._beat_at = 0.0
        self._stopping = False
        #: Whether the loop ends as soon as no worker is connected.
        self._retiring = False
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
            "inference_threads": inference_threads,
            "prefetch_depth": prefetch_depth,
        }

    def run(self) -> None:
        """Serve until :meth:`stop`. The calling thread reads; the inference threads are started here."""
        self._listener.setblocking(False)
        self._wake_reader.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._flush_all)
        inference_threads = [
            threading.Thread(target=self._infer, args=(number,), name=f"inference-{number}", daemon=True)
            for number in range(len(self._busy_since))
        ]
        for thread in inference_threads:
            thread.start()
        busy = self._beat()
        self._status.post("state", State.READY)
        while not self._stopping:
            ready = self._selector.select(BEAT_S if busy else IDLE_BEAT_S)
            for key, events in ready:
                handler = key.data
                if isinstance(handler, WorkerConnection):
                    self._serve(handler, events)
                else:
                    handler()
            # Without a beat, assume that the loop is busy: work that has just arrived may be waiting.
            due = not ready or time.monotonic() - self._beat_at >= LEAST_BEAT_S
            busy = self._beat() if due else True
        with self._lock:
            self._turn.notify_all()
        for thread in inference_threads:
            thread.join(timeout=self._run_limit.seconds)

    def stop(self) -> None:
        """Make :meth:`run` return; safe in a signal handler."""
        self._stopping = True
        self._wake_writer.send(b"w")

    def retire(self) -> None:
        """Make :meth:`run` return once no worker is connected; safe in a signal handler."""
        self._retiring = True
        self._wake_writer.send(b"r")

    def _beat(self) -> bool:
        """Expire late items, post the loop's status, and return whether anything runs or waits."""
        self._beat_at = now = time.monotonic()
        self._relief.restore_due(now)
        with self._lock:
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
        except OSError:  # the worker closed it before it was accepted
            return
        if not address.is_own_user(connected):
            log.warning("refused a connection from another user")
            connected.close()
            return
        address.enlarge(connected)
        connected.setblocking(False)
        connection = WorkerConnection(next(self._numbers), connected)
        self._connections[connection.number] = connection
        self._selector.register(connected, selectors.EVENT_READ, connection)
        for part in wire.pack_text(Kind.HELLO, self._handshake):
            self._send(connection, part)

    def _serve(self, connection: WorkerConnection, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush(connection)
        if not events & selectors.EVENT_READ:
            return
        try:
            self._read(connection)
        except WireError as error:
            log.error("closing a worker's connection: %s", error)  # noqa: TRY400 - the text is complete
            self._forget(connection)
        except OSError:
            self._forget(connection)

    def _read(self, connection: WorkerConnection) -> None:
        """Handle all messages that have arrived. Raises WireError or OSError to close the connection."""
        added = False
        while True:
            try:
                data, ancillary = connection.receive()
            except BlockingIOError:
                break
            if not data:
                self._forget(connection)
                break
            if data[0] == Kind.SUBMIT:
                self._submit(connection, data)
                added = True
            elif data[0] == Kind.CANCEL:
                self._cancel(connection, wire.unpack_cancel(data))
            elif data[0] == Kind.ATTACH:
                connection.attach(data, ancillary)
            elif data[0] == Kind.RING_FOLLOWS:
                connection.awaits_ring = True
            elif data[0] == Kind.DETACH:
                connection.detach(wire.unpack_ring(data))
            else:
                raise WireError(f"unknown message kind {data[0]}")
        if added:
            with self._lock:
                self._turn.notify(self._planner.waiting)

    def _submit(self, connection: WorkerConnection, data: bytes) -> None:
        submit = wire.unpack_submit(data)
        ring = connection.rings.get(submit.ring)
        if ring is None or submit.version >= len(self._detectors):
            raise WireError("a frame was submitted before its ring, or for an unknown version")
        model = self._detectors[submit.version].model
        ring.pixels(submit.slot, model.input_width, model.input_height)  # raises if the slot is out of range
        item = Item(connection.number, submit, time.monotonic())
        with self._lock:
            self._planner.add(item)
            if self._planner.runs_shadow and not submit.shadow:
                self._executor.interrupt_shadow()

    def _cancel(self, connection: WorkerConnection, request_id: int) -> None:
        with self._lock:
            item = self._planner.cancel(connection.number, request_id)
            if item is None and self._planner.is_running_shadow(connection.number, request_id):
                self._executor.interrupt_shadow()
        if item is not None:
            self._answer(item, Result(request_id, Status.CANCELLED, NO_BOXES))

    def _forget(self, connection: WorkerConnection) -> None:
        """Close a worker's connection. Its running items finish, and their results are discarded."""
        if connection.closed:
            return
        connection.closed = True
        self._selector.unregister(connection.socket)
        with self._lock:
            self._planner.forget_worker(connection.number)
        with connection.lock:
            del self._connections[connection.number]
            connection.socket.close()
        for ring in connection.rings.values():
            ring.close()
        if self._retiring and not self._connections:
            self.stop()

    # -- inference threads ---------------------------------------------------------------------------

    def _infer(self, number: int) -> None:
        while True:
            with self._lock:
                late = self._planner.expire(time.monotonic())
                batch = self._planner.next()
                while batch is None and not late and not self._stopping:
                    self._turn.wait()
                    late = self._planner.expire(time.monotonic())
                    batch = self._planner.next()
                started = time.monotonic()
                if batch is not None:
                    self._busy_since[number] = started
                    self._executor.prepare(batch)
            if self._stopping:
                return
            for item in late:
                self._answer(item, Result(item.submit.request_id, Status.EXPIRED, NO_BOXES))
            if batch is None:
                continue
            try:
                self._executor.execute(number, batch, started)
            finally:
                with self._lock:
                    self._busy_since[number] = 0.0
                    self._planner.done(batch, time.monotonic() - started)
                    # The end of this batch may have made streams eligible. This thread takes the first
                    # waiting item itself, so it only wakes another thread for a second one: waking a thread
                    # in vain costs a quarter of the time of a model that computes nothing. After an item that
                    # executed alone, all threads may continue.
                    waiting = self._planner.waiting
                    if waiting > 1:
                        self._turn.notify(waiting if batch.items[0].submit.alone else 1)

    # -- answers -------------------------------------------------------------------------------------

    def _answer(self, item: Item, result: Result) -> None:
        connection = self._connections.get(item.worker)
        if connection is not None:
            ring = connection.rings.get(item.submit.ring)
            if ring is not None:
                ring.mark(item.submit.slot, executing=False)
            self._send(connection, wire.pack_result(result))

    def _send(self, connection: WorkerConnection, message: bytes) -> None:
        """Send now, or as soon as the worker reads; never wait for a worker."""
        if connection.send(message):
            self._wake_writer.send(b"w")

    def _flush_all(self) -> None:
        self._wake_reader.recv(4096)
        if self._retiring and not self._connections:
            self._stopping = True
        for connection in list(self._connections.values()):
            if connection.outbox:
                self._flush(connection)

    def _flush(self, connection: WorkerConnection) -> None:
        with connection.lock:
            connection.flush()
            if connection.closed:
                return
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.outbox else 0)
            self._selector.modify(connection.socket, wanted, connection)
