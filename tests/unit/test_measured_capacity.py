"""The capacity follows the warm-up, decoding, and the rate that a saturated replica reaches."""

from __future__ import annotations

import random

import pytest

from inference.ipc.served_model import ServedModel
from inference.models.model import Family, ModelInfo, Placement
from streamer.scheduling.measured_capacity import WINDOW_S, MeasuredCapacity, Work, expected_fps

INFO = ModelInfo("m", "0", Family.YOLO, ("a",), 320, 320, Placement.CENTRED, 114)
CUDA = ModelInfo("m", "0", Family.YOLO, ("a",), 320, 320, Placement.CENTRED, 114, provider="cuda")
#: On two cores: 40 frames per second.
ON_CPU = ServedModel(0, "v1", INFO, {1: 50.0}, in_flight=4, parallel=2, inference_threads=2)
#: 16 frames in 8 ms: 2,000 frames per second.
ON_GPU = ServedModel(0, "v1", CUDA, {1: 2.0, 16: 8.0}, in_flight=48, parallel=1, inference_threads=2)


class Replica:
    """Runs frames of one version at given rates, and lets a `MeasuredCapacity` observe it."""

    def __init__(self, model: ServedModel, cores: int) -> None:
        self.model = model
        self.cores = cores
        self.measured = MeasuredCapacity(cores)
        self.done = Work()
        self.now = 100.0

    def run(self, seconds: int, fps: float, *, decode_ms: float = 5.0, saturated: bool) -> None:
        for _ in range(seconds):
            self.now += 1.0
            device_s = fps / self.model.capacity_fps
            self.done = Work(
                self.done.frames + fps,
                self.done.decode_s + fps * decode_ms / 1e3,
                self.done.device_s + device_s,
                self.done.saturated_s + (device_s if saturated else 0.0),
                self.done.full_s + saturated,
            )
            self.measured.observe(self.done, self.model, self.now)

    @property
    def capacity_fps(self) -> float:
        factor = self.measured.factor or 1.0
        return factor * expected_fps(self.model, self.measured.decode_ms, self.cores)


def test_models_and_decoders_share_the_cores_of_a_cpu() -> None:
    assert expected_fps(ON_CPU, 0.0, 2) == pytest.approx(40)
    assert expected_fps(ON_CPU, 4.0, 2) == pytest.approx(2 / 0.054)


def test_the_slower_of_card_and_decoders_decides_on_a_gpu() -> None:
    assert expected_fps(ON_GPU, 4.0, 16) == pytest.approx(2000)
    assert expected_fps(ON_GPU, 16.0, 16) == pytest.approx(1000)


def test_an_idle_replica_has_the_capacity_of_its_warm_up() -> None:
    replica = Replica(ON_CPU, 2)
    replica.run(60, 0.0, saturated=False)
    assert replica.capacity_fps == pytest.approx(40)


def test_a_saturated_replica_has_the_capacity_that_it_reaches() -> None:
    for model, cores, reached in ((ON_CPU, 2, 25.0), (ON_GPU, 16, 900.0)):
        replica = Replica(model, cores)
        replica.run(30, reached, saturated=True)
        assert replica.capacity_fps == pytest.approx(reached, rel=0.02)
        replica.run(600, reached / 5, saturated=False)
        assert replica.capacity_fps == pytest.approx(reached, rel=0.02), "it is remembered"


def test_the_end_of_a_saturation_does_not_lower_the_capacity() -> None:
    for seconds in range(20, 24):  # wherever the window begins
        replica = Replica(ON_CPU, 2)
        replica.run(seconds, 30.0, saturated=True)
        replica.run(20, 0.0, saturated=False)
        assert replica.capacity_fps == pytest.approx(30, rel=0.06)


def test_light_load_does_not_change_the_capacity() -> None:
    replica = Replica(ON_CPU, 2)
    replica.run(300, 4.0, saturated=False)
    assert replica.capacity_fps == pytest.approx(2 / 0.055, rel=0.01)


def test_a_rate_that_was_reached_without_waiting_is_possible() -> None:
    replica = Replica(ON_CPU, 2)
    replica.run(30, 20.0, saturated=True)
    replica.run(60, 30.0, saturated=False)
    assert replica.capacity_fps == pytest.approx(30, rel=0.02)


def test_expensive_images_lower_the_capacity_only_while_they_come() -> None:
    replica = Replica(ON_GPU, 4)
    replica.run(60, 780.0, decode_ms=5.0, saturated=True)
    before = replica.capacity_fps
    replica.run(120, 39.0, decode_ms=100.0, saturated=True)
    assert replica.capacity_fps < before / 10
    replica.run(300, 100.0, decode_ms=5.0, saturated=False)
    assert replica.capacity_fps == pytest.approx(before, rel=0.1)


def test_the_capacity_does_not_flutter() -> None:
    """Test with a rate that varies by a fifth and a decode time that varies by a half."""
    replica, chance = Replica(ON_CPU, 2), random.Random(1)
    seen = []
    for second in range(600):
        fps, decode_ms = 30 * chance.uniform(0.8, 1.2), 5 * chance.uniform(0.5, 1.5)
        replica.run(1, fps, decode_ms=decode_ms, saturated=True)
        if second >= 60:
            seen.append(replica.capacity_fps)
    assert max(seen) / min(seen) < 1.2
    assert sum(seen) / len(seen) == pytest.approx(30, rel=0.03)


def test_a_window_with_a_restart_in_it_does_not_count() -> None:
    replica = Replica(ON_CPU, 2)
    replica.run(30, 30.0, saturated=True)
    before = replica.capacity_fps
    for _ in range(20):
        replica.run(1, 30.0, saturated=True)
        replica.measured.interrupt()
        replica.run(1, 0.0, saturated=True)
    replica.now += 20 * WINDOW_S  # this process was suspended
    replica.run(1, 30.0, saturated=True)
    assert replica.capacity_fps == pytest.approx(before, rel=0.01)


def test_counters_that_fall_are_ignored() -> None:
    replica = Replica(ON_CPU, 2)
    replica.run(30, 30.0, saturated=True)
    before = replica.capacity_fps
    replica.done = Work()
    replica.run(5, 30.0, saturated=True)
    assert replica.capacity_fps == pytest.approx(before, rel=0.01)


def test_a_successor_continues_with_what_was_learned() -> None:
    replica = Replica(ON_CPU, 2)
    replica.run(30, 20.0, saturated=True)
    successor = MeasuredCapacity(2, replica.measured.factor, replica.measured.decode_ms)
    assert successor.factor * expected_fps(ON_CPU, successor.decode_ms, 2) == pytest.approx(20, rel=0.02)
