"""Publishes the capacity of the replica and the demand of its clients, once a second.

Workers post what they have run to the shared status. The first worker derives the capacity of the replica
from the sum, and every worker posts its part of the load.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Protocol

from inference.ipc.served_model import ServedModel
from inference.ipc.shared_status import SharedStatus
from streamer.accounting.capacity_metrics import CapacityMetrics
from streamer.scheduling.load_counters import LoadCounters
from streamer.scheduling.measured_capacity import MeasuredCapacity, Work, expected_fps
from streamer.scheduling.stream_rates import StreamRates

#: Frames wait for the device during a whole second if they do for at least this part of it.
_WHOLE = 0.9
#: Fields of the shared status that contain the `Work` of a worker, in the order of its fields.
_WORK = ("frames", "decode_s", "device_s", "saturated_s", "full_s")


class Queue(Protocol):
    """Describes a version's queue."""

    #: Counts of what has run and what was asked.
    load: LoadCounters
    rates: StreamRates


class InferenceProcess(Protocol):
    """Describes the connection to the inference process."""

    #: Whether it is ready, and the models that it serves, by version.
    ready: bool
    models: dict[str, ServedModel]


class ReplicaLoad:
    """Measures capacity, demand and load. All methods run on the event loop of worker ``number``."""

    def __init__(
        self,
        status: SharedStatus,
        number: int,
        workers: int,
        metrics: CapacityMetrics,
        queues: Mapping[str, Queue],
        inference: InferenceProcess,
        *,
        min_fps: float = 0.0,
    ) -> None:
        """Create the series. A refused stream asks for ``min_fps`` if no open stream tells a rate."""
        self._status = status
        self._number = number
        self._workers = workers
        self._metrics = metrics
        self._queues = queues
        self._inference = inference
        self._min_fps = min_fps
        self._cores = len(os.sched_getaffinity(0))
        #: What this worker has done, continued from a predecessor that was killed.
        self._own = self._read_work(number)
        self._seen_frames = dict.fromkeys(queues, 0)
        self._seen_decode_s = dict.fromkeys(queues, 0.0)
        #: Monotonic seconds of the last measurement; None before the first.
        self._measured_at: float | None = None
        self._capacity = MeasuredCapacity(
            self._cores, max(0.0, status.read("capacity_factor")), max(0.0, status.read("decode_ms"))
        )
        metrics.preset(tuple(queues))
        for queue in queues.values():
            queue.load.workers = workers
        status.post_worker(number, "load", 0.0)

    @property
    def load(self) -> float:
        """Demand over capacity of the replica, all workers together; more than 1 means overloaded.

        It includes the demand that was refused. It is 0 as long as the capacity is not known.
        """
        return sum(max(0.0, self._status.read_worker(each, "load")) for each in range(self._workers))

    def capacity_fps(self, version: str) -> float | None:
        """Return the frames per second that the replica could run of a version alone; None if unknown."""
        model = self._inference.models.get(version)
        if model is None:
            return None
        factor, decode_ms = self._status.read("capacity_factor"), self._status.read("decode_ms")
        return (factor if factor > 0 else 1.0) * expected_fps(model, max(0.0, decode_ms), self._cores)

    def measure(self, now: float) -> None:
        """Measure and publish everything; call this about once a second. ``now`` is in monotonic seconds."""
        passed_s = None if self._measured_at is None else now - self._measured_at
        self._measured_at = now
        self._count_work(now, passed_s)
        if self._number == 0:
            self._measure_capacity(now)
        load = 0.0
        for version, queue in self._queues.items():
            if passed_s:
                queue.load.update(passed_s)
            demand_fps = self._publish_demand(version, queue)
            capacity_fps = self.capacity_fps(version)
            if capacity_fps is None:
                continue
            load += demand_fps / capacity_fps
            if self._number == 0:
                self._metrics.capacity.labels(version).set(capacity_fps)
        self._status.post_worker(self._number, "load", load)

    def _publish_demand(self, version: str, queue: Queue) -> float:
        """Publish what clients ask of a version, and return it in frames per second with what was refused."""
        counters, rates, metrics = queue.load, queue.rates, self._metrics
        asked_fps, granted_fps, mean_fps = rates.asked_fps()
        refused_fps = counters.refused_streams * (mean_fps or self._min_fps)
        posts_fps, refused_posts_fps = counters.posts_fps, counters.refused_posts_fps
        metrics.demand.labels(version, "live").set(asked_fps)
        metrics.demand.labels(version, "post").set(posts_fps)
        metrics.granted.labels(version).set(granted_fps)
        metrics.refused.labels(version, "live").set(refused_fps)
        metrics.refused.labels(version, "post").set(refused_posts_fps)
        return asked_fps + posts_fps + refused_fps + refused_posts_fps

    # -- capacity --------------------------------------------------------------------------------------

    def _count_work(self, now: float, passed_s: float | None) -> None:
        """Post what this worker has done so far."""
        frames, decode_s, device_s, full_s = 0, 0.0, 0.0, 0.0
        for version, queue in self._queues.items():
            counters, model = queue.load, self._inference.models.get(version)
            full_s = max(full_s, counters.take_full_s(now))
            counters.workers = self._workers  # the version may have been added since the start
            ran = counters.frames - self._seen_frames.get(version, 0)
            decode_s += counters.decode_s - self._seen_decode_s.get(version, 0.0)
            self._seen_frames[version], self._seen_decode_s[version] = counters.frames, counters.decode_s
            frames += ran
            if model is not None:
                device_s += ran / model.capacity_fps
        is_full = passed_s is not None and full_s >= _WHOLE * passed_s
        own = self._own
        self._own = own = Work(
            own.frames + frames,
            own.decode_s + decode_s,
            own.device_s + device_s,
            own.saturated_s + (device_s if is_full else 0.0),
            own.full_s + full_s,
        )
        for field in _WORK:
            self._status.post_worker(self._number, field, getattr(own, field))

    def _measure_capacity(self, now: float) -> None:
        """Learn from what all workers have done, and post what all workers need to know of it."""
        models = self._inference.models
        model = next((models[version] for version in self._queues if version in models), None)
        if model is None or not self._inference.ready:
            self._capacity.interrupt()
            return
        works = [self._read_work(each) for each in range(self._workers)]
        total = Work(*(sum(getattr(work, field) for work in works) for field in _WORK))
        self._capacity.observe(total, model, now)
        self._status.post("capacity_factor", self._capacity.factor)
        self._status.post("decode_ms", self._capacity.decode_ms)

    def _read_work(self, number: int) -> Work:
        return Work(*(self._status.read_worker(number, field) for field in _WORK))
