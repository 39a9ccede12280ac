"""Tests that lack of memory makes batches smaller for a while, and that a lost device ends the process."""

from __future__ import annotations

import threading
import time

import pytest

from inference.engine.memory_relief import (
    EXIT_DEVICE_LOST,
    MAX_FAILED_ALONE,
    RESTORE_AFTER_S,
    MemoryRelief,
    exit_if_device_lost,
)
from inference.engine.planner import Planner
from tests.helpers.planner_items import frame
from tests.helpers.waiting import wait_for

ARENA = RuntimeError(
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : bfc_arena.cc AllocateRawInternal Failed to allocate memory "
    "for requested buffer of size 268435456"
)
CUDA_OOM = RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc")
STICKY = [
    "CUDA failure 700: an illegal memory access was encountered ; GPU=0",
    "CUDA error 719: unspecified launch failure",
    "CUDA error: uncorrectable ECC error encountered",
    "CUDNN failure 5003: CUDNN_STATUS_EXECUTION_FAILED_CUDART",
]
STEEP = {1: 0.010, 2: 0.011, 4: 0.012, 8: 0.014}


class Model:
    """Stands for a detector and records the calls that it gets."""

    def __init__(self) -> None:
        self.released: list[int] = []
        self.rehearsed: list[int] = []
        self.fault: Exception | None = None

    def release_above(self, size: int) -> None:
        self.released.append(size)

    def rehearse(self, thread: int) -> None:
        self.rehearsed.append(thread)
        if self.fault is not None:
            raise self.fault


class _Exit(Exception):
    pass


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []

    def note(code: int) -> None:
        codes.append(code)
        raise _Exit

    monkeypatch.setattr("os._exit", note)
    return codes


def make() -> tuple[MemoryRelief, Model, Planner]:
    model, planner = Model(), Planner({0: STEEP}, parallel=1)
    return MemoryRelief([model], planner, threading.Condition(), spare_thread=2), model, planner


def largest_batch(planner: Planner) -> int:
    for stream in range(1, 9):
        planner.add(frame(stream))
    sizes = []
    while (batch := planner.next()) is not None:
        sizes.append(len(batch.items))
        planner.done(batch)
    return max(sizes)


@pytest.mark.parametrize("error", [ARENA, CUDA_OOM, MemoryError()], ids=["arena", "cuda", "host"])
def test_the_largest_batch_is_halved_and_its_memory_given_back(error: Exception) -> None:
    relief, model, planner = make()
    assert largest_batch(planner) == 8
    assert relief.reduce(0, 8, error)
    assert (largest_batch(planner), model.released) == (4, [4])
    assert relief.reduce(0, 4, error)
    assert (largest_batch(planner), model.released) == (2, [4, 2])


def test_a_fault_of_another_kind_reduces_nothing() -> None:
    relief, model, planner = make()
    assert not relief.reduce(0, 8, RuntimeError("Gather: index out of range"))
    assert (largest_batch(planner), model.released) == (8, [])


def test_larger_batches_come_back_once_they_have_run_in_a_lane_of_their_own() -> None:
    relief, model, planner = make()
    before = time.monotonic()
    relief.reduce(0, 8, ARENA)
    now = time.monotonic()
    relief.restore_due(before + RESTORE_AFTER_S - 1)
    assert model.rehearsed == []
    model.fault = ARENA
    relief.restore_due(now + RESTORE_AFTER_S + 1)
    wait_for(lambda: model.rehearsed == [2] and not _restoring(relief), "tried")
    assert largest_batch(planner) == 4, "there is no memory yet"
    model.fault = None
    relief.restore_due(now + RESTORE_AFTER_S - 1)
    assert model.rehearsed == [2], "not at once again"
    relief.restore_due(time.monotonic() + RESTORE_AFTER_S + 1)
    wait_for(lambda: len(model.rehearsed) == 2 and not _restoring(relief), "tried again")
    assert largest_batch(planner) == 8


def _restoring(relief: MemoryRelief) -> bool:
    return relief._restoring is not None and relief._restoring.is_alive()


@pytest.mark.parametrize("text", STICKY)
def test_a_lost_device_ends_the_process(exits: list[int], text: str) -> None:
    with pytest.raises(_Exit):
        exit_if_device_lost(RuntimeError(text))
    assert exits == [EXIT_DEVICE_LOST]


@pytest.mark.parametrize("error", [ARENA, CUDA_OOM, RuntimeError("Gather: index out of range")])
def test_a_device_that_is_only_full_is_not_lost(exits: list[int], error: Exception) -> None:
    exit_if_device_lost(error)
    assert exits == []


def test_frames_that_have_no_memory_alone_end_the_process_unless_one_runs_between(exits: list[int]) -> None:
    relief, _, _ = make()
    for _ in range(MAX_FAILED_ALONE - 1):
        relief.failed_alone(0, ARENA)
    relief.ran_alone(0)
    for _ in range(MAX_FAILED_ALONE - 1):
        relief.failed_alone(0, ARENA)
    assert exits == []
    with pytest.raises(_Exit):
        relief.failed_alone(0, ARENA)
    assert exits == [EXIT_DEVICE_LOST]
