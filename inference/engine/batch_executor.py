"""Runs a batch that the planner has formed: reads the frames, calls the model and answers each item."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from inference.core.detection_params import DetectionParams
from inference.core.detections import NO_BOXES, Boxes
from inference.core.metric_value import Counter
from inference.core.run_limit import RunLimit
from inference.engine.items import Batch, BatchReason, Item
from inference.engine.memory_relief import MemoryRelief, exit_if_device_lost
from inference.engine.metrics import InferenceMetrics
from inference.engine.onnx_session import RunSwitch
from inference.engine.worker_connection import WorkerConnection
from inference.ipc import wire
from inference.ipc.wire import Result, Status
from inference.models.model import ModelInfo

log = logging.getLogger("inference.loop")


class SupportsInference(Protocol):
    """Defines the part of a detector that `BatchExecutor` and the loop use."""

    model: ModelInfo
    cost_s: dict[int, float]

    def infer(
        self,
        frames: Sequence[npt.NDArray[np.uint8]],
        *,
        thread: int,
        single: bool = False,
        switch: RunSwitch | None = None,
    ) -> Any:
        """Run at least one frame, and at most as many as the largest batch size.

        ``switch`` can end the run early; it then raises.
        """

    def postprocess(self, raw: Any, index: int, params: DetectionParams) -> Boxes:
        """Return the boxes of one item of a run."""

    def release_above(self, size: int) -> None:
        """Free what batches of more than ``size`` frames use."""

    def rehearse(self, thread: int) -> None:
        """Run every batch size once as ``thread``, which no other caller uses."""


class BatchExecutor:
    """Executes batches on several inference threads at once.

    The loop adds and removes ``connections``; this class only reads them. ``answer`` sends a result to the
    worker of an item.
    """

    def __init__(
        self,
        detectors: Mapping[str, SupportsInference],
        connections: Mapping[int, WorkerConnection],
        relief: MemoryRelief,
        run_limit: RunLimit,
        metrics: InferenceMetrics,
        answer: Callable[[Item, Result], None],
    ) -> None:
        self._versions = tuple(detectors)
        self._detectors = tuple(detectors.values())
        self._connections = connections
        self._relief = relief
        self._run_limit = run_limit
        self._metrics = metrics
        self._answer = answer
        #: Metric series by version index, kept because looking labels up costs more than counting.
        self._batch_sizes = tuple(metrics.batch_size.labels(version) for version in detectors)
        self._run_s = tuple(metrics.run_s.labels(version, metrics.engine) for version in detectors)
        #: By version index and reason; a series appears with its first batch.
        self._batches: dict[tuple[int, BatchReason], Counter] = {}
        #: One thread post-processes at a time: two threads that make many tiny NumPy calls compete for the
        #: GIL and are half as fast as one.
        self._postprocessing = threading.Lock()
        #: Ends the shadow run in progress, or the last one.
        self._switch = RunSwitch()

    def prepare(self, batch: Batch) -> None:
        """Prepare a batch that is about to run. The caller holds the planner's lock."""
        if batch.reason is BatchReason.SHADOW:
            self._switch = RunSwitch()

    def interrupt_shadow(self) -> None:
        """End the shadow run in progress. The caller holds the planner's lock."""
        self._switch.throw()

    def execute(self, thread: int, batch: Batch, started: float) -> None:
        """Run a batch and answer all of its items. When the batch fails, run its items one by one."""
        if batch.reason is BatchReason.SHADOW:
            self._execute_shadow(thread, batch, started)
            return
        self._batch_sizes[batch.version].observe(len(batch.items))
        self._count(batch)
        try:
            self._run(thread, batch.version, batch.items, started, single=batch.single)
        except Exception as error:  # noqa: BLE001 - a model may raise anything; each item is answered
            exit_if_device_lost(error)
            out_of_memory = self._relief.reduce(batch.version, len(batch.items), error)
            if len(batch.items) == 1 and not out_of_memory:
                self._fail(batch.items[0], error)
                return
            log.warning("a batch of %d failed; its items run one by one: %s", len(batch.items), error)
            for item in batch.items:
                try:
                    self._run(thread, batch.version, (item,), started, single=False)
                except Exception as alone:  # noqa: BLE001 - as above
                    exit_if_device_lost(alone)
                    self._relief.failed_alone(batch.version, alone)
                    self._fail(item, alone)
                else:
                    self._relief.ran_alone(batch.version)

    def _execute_shadow(self, thread: int, batch: Batch, started: float) -> None:
        """Run a shadow item until `interrupt_shadow` ends it; its answer then says that it was cancelled."""
        switch, item = self._switch, batch.items[0]
        try:
            self._run(thread, batch.version, batch.items, started, single=False, switch=switch)
        except Exception as error:  # noqa: BLE001 - a model may raise anything; the item is answered
            if switch.thrown:
                self._answer(item, Result(item.submit.request_id, Status.CANCELLED, NO_BOXES))
                return
            exit_if_device_lost(error)
            self._fail(item, error)
        else:
            self._count(batch)

    def _count(self, batch: Batch) -> None:
        key = batch.version, batch.reason
        counted = self._batches.get(key)
        if counted is None:
            counted = self._metrics.batches.labels(self._versions[batch.version], batch.reason)
            self._batches[key] = counted
        counted.inc()

    def _run(
        self,
        thread: int,
        version: int,
        items: tuple[Item, ...],
        started: float,
        *,
        single: bool,
        switch: RunSwitch | None = None,
    ) -> None:
        detector = self._detectors[version]
        model = detector.model
        served: list[tuple[Item, npt.NDArray[np.uint8]]] = []
        for item in items:
            connection = self._connections.get(item.worker)
            ring = None if connection is None else connection.rings.get(item.submit.ring)
            if ring is None:
                continue  # the worker has gone meanwhile, so nobody waits for this item
            slot = item.submit.slot
            served.append((item, ring.pixels(slot, model.input_width, model.input_height)))
            # The answer clears this mark. If this process dies first, the worker finds the mark.
            ring.mark(slot, executing=True)
        if not served:
            return
        begun = time.perf_counter()
        frames = [frame for _, frame in served]
        if switch is None:
            raw = detector.infer(frames, thread=thread, single=single)
        else:
            raw = detector.infer(frames, thread=thread, switch=switch)
        ran_s = time.perf_counter() - begun
        self._run_s[version].observe(ran_s)
        with self._postprocessing:
            self._run_limit.observe(version, len(served), ran_s)
            for index, (item, _) in enumerate(served):
                begun = time.perf_counter()
                try:
                    boxes = detector.postprocess(raw, index, item.submit.params)
                except Exception as error:  # noqa: BLE001 - other items of this run have been answered
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
