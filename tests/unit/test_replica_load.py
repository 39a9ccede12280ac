"""The load of a replica is the demand of all workers' clients over the capacity of the device."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from inference.ipc.served_model import ServedModel
from inference.ipc.shared_status import SharedStatus
from inference.models.model import Family, ModelInfo, Placement
from streamer.accounting.capacity_metrics import CapacityMetrics
from streamer.scheduling.clients import Client
from streamer.scheduling.load_counters import LoadCounters
from streamer.scheduling.replica_load import ReplicaLoad
from streamer.scheduling.stream_rates import StreamRates

INFO = ModelInfo("m", "0", Family.YOLO, ("a",), 320, 320, Placement.CENTRED, 114, provider="cuda")
#: 100 and 50 frames per second.
V1 = ServedModel(0, "v1", INFO, {1: 10.0}, in_flight=2, parallel=1, inference_threads=1)
V2 = ServedModel(1, "v2", INFO, {1: 20.0}, in_flight=2, parallel=1, inference_threads=1)


class FixedRates(StreamRates):
    """Streams that ask for, and are granted, what the test says."""

    def __init__(self, asked_fps: float, granted_fps: float) -> None:
        super().__init__()
        self.values = (asked_fps, granted_fps, 10.0)

    def asked_fps(self) -> tuple[float, float, float]:
        return self.values


@dataclass
class FakeQueue:
    rates: StreamRates
    load: LoadCounters = field(default_factory=LoadCounters)


@dataclass
class FakeInference:
    ready: bool = True
    models: dict[str, ServedModel] = field(default_factory=lambda: {"v1": V1, "v2": V2})


class Worker:
    """Holds the load of one worker, whose streams ask for ``v1_fps`` and ``v2_fps``."""

    def __init__(
        self,
        status: SharedStatus,
        number: int = 0,
        workers: int = 1,
        *,
        v1_fps: float = 0.0,
        v2_fps: float = 0.0,
    ) -> None:
        self.metrics = CapacityMetrics()
        self.inference = FakeInference()
        self.queues = {
            "v1": FakeQueue(FixedRates(v1_fps, v1_fps / 2)),
            "v2": FakeQueue(FixedRates(v2_fps, v2_fps)),
        }
        self.load = ReplicaLoad(status, number, workers, self.metrics, self.queues, self.inference)
        self.now = 100.0

    def second(self, *, frames: int = 0, full: bool = False) -> None:
        """Let a second pass in which ``frames`` frames of v1 got their results."""
        counters = self.queues["v1"].load
        counters.note_full(self.now, full=full)
        for _ in range(frames):
            counters.ran(1.0)
        self.now += 1.0
        self.load.measure(self.now)

    def values(self) -> dict[str, float]:
        """Return all values by metric, version and class, such as ``demand v1 live``."""
        found = {}
        for metric in vars(self.metrics).values():
            for family in metric.collect():
                for sample in family.samples:
                    name = sample.name.removeprefix("object_detection_").removesuffix("_frames_per_second")
                    labels = (sample.labels["version"], sample.labels.get("class", ""))
                    found[" ".join((name, *labels)).strip()] = sample.value
        return found


def test_an_idle_replica_publishes_its_capacity_and_zeros() -> None:
    worker = Worker(SharedStatus())
    worker.second()
    assert worker.values() == {
        "capacity v1": pytest.approx(100),
        "capacity v2": pytest.approx(50),
        "demand v1 live": 0,
        "demand v1 post": 0,
        "demand v2 live": 0,
        "demand v2 post": 0,
        "granted v1": 0,
        "granted v2": 0,
        "refused v1 live": 0,
        "refused v1 post": 0,
        "refused v2 live": 0,
        "refused v2 post": 0,
    }
    assert worker.load.load == 0


def test_an_unknown_capacity_has_no_series_and_no_load() -> None:
    worker = Worker(SharedStatus(), v1_fps=10, v2_fps=10)
    worker.inference.models = {}
    worker.second()
    assert not [name for name in worker.values() if name.startswith("capacity")]
    assert (worker.load.load, worker.load.capacity_fps("v1")) == (0, None)
    worker.inference.models = {"v1": V1}
    worker.second()
    assert [name for name in worker.values() if name.startswith("capacity")] == ["capacity v1"]
    assert worker.load.load == pytest.approx(0.1)


def test_the_load_adds_up_versions_posts_and_refusals() -> None:
    worker = Worker(SharedStatus(), v1_fps=30, v2_fps=10)
    load, client = worker.queues["v1"].load, Client("a", 1)
    for _ in range(100):
        for _ in range(20):
            load.post_queued(client)
        load.stream_refused(client)
        worker.second()
    values = worker.values()
    assert values["demand v1 live"] == 30
    assert values["granted v1"] == 15
    assert values["demand v1 post"] == pytest.approx(20, rel=0.01)
    assert values["refused v1 live"] == pytest.approx(10), "one stream of the mean rate"
    assert worker.load.load == pytest.approx(0.3 + 0.2 + 0.1 + 10 / 50, rel=0.01)


def test_the_load_is_that_of_all_workers_and_the_capacity_that_of_the_device() -> None:
    status = SharedStatus()
    workers = [Worker(status, number, 3, v1_fps=20.0 * number) for number in range(3)]
    for _ in range(3):
        for worker in workers:
            worker.second()
    assert [worker.load.load for worker in workers] == [pytest.approx(0.6)] * 3
    assert [worker.load.capacity_fps("v1") for worker in workers] == [pytest.approx(100)] * 3
    assert ["capacity v1" in worker.values() for worker in workers] == [True, False, False]


def test_the_capacity_is_learned_from_what_all_workers_run() -> None:
    status = SharedStatus()
    workers = [Worker(status, number, 2) for number in range(2)]
    for _ in range(30):
        workers[1].second(frames=40, full=True)
        workers[0].second(frames=20, full=True)
    for worker in workers:
        assert worker.load.capacity_fps("v1") == pytest.approx(60, rel=0.03)
        assert worker.load.capacity_fps("v2") == pytest.approx(30, rel=0.03)
    successor = Worker(status, 0, 2)
    successor.second()
    assert successor.load.capacity_fps("v1") == pytest.approx(60, rel=0.03), "a restart does not forget it"
    assert workers[1].load.load == 0


def test_one_busy_worker_among_idle_ones_is_not_the_capacity_of_the_device() -> None:
    """Its frames do not wait for the device, although its event loop may be the limit."""
    status = SharedStatus()
    workers = [Worker(status, number, 2) for number in range(2)]
    for _ in range(30):
        workers[0].second(frames=40)
        workers[1].second()
    assert workers[0].load.capacity_fps("v1") == pytest.approx(100)


def test_a_restart_of_the_inference_process_teaches_nothing() -> None:
    worker = Worker(SharedStatus())
    for _ in range(20):
        worker.second(frames=80, full=True)
    for _ in range(5):
        worker.inference.ready = False
        worker.second(full=True)
        worker.second(full=True)
        worker.inference.ready = True
        worker.second(frames=10, full=True)
    assert worker.load.capacity_fps("v1") == pytest.approx(80, rel=0.03)


def test_values_of_the_shared_status_that_cannot_be_are_ignored() -> None:
    status = SharedStatus()
    worker = Worker(status, v1_fps=50)
    for value in (float("nan"), float("inf"), -5.0):
        for name in ("frames", "decode_s", "device_s", "saturated_s", "full_s"):
            status.post_worker(0, name, value)
        status.post("capacity_factor", value)
        status.post("decode_ms", value)
        Worker(status, v1_fps=50).second()
        worker.second()
        assert worker.load.load == pytest.approx(0.5)
