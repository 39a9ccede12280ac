"""Tests how much memory and processor time an idle service uses, and which libraries its processes load."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from bench.idle import cpu_s, family
from bench.overload import memory_mb
from tests.helpers.service import Service

pytestmark = pytest.mark.alone

#: Most memory (PSS) of all processes together. 307 MB were measured on two cores of Zen 3; the fork server of
#: the inference process adds up to 20 MB, and some machines use 30 MB more.
MAX_PSS_MB = 370.0
#: Most processor time of all processes together, as a share of one core.
MAX_IDLE_CPU = 0.01
#: Most wake-ups per second of all processes together. One wake-up may cost 1 ms on a virtual machine.
MAX_WAKES = 8


@pytest.fixture(scope="module")
def idle(yolox_nano: Path) -> Service:
    return Service({"MODEL_V1_PATH": str(yolox_nano)})


def wakes(service: Service) -> int:
    """Return how often the main threads of all processes have woken up."""
    return sum(process.num_ctx_switches().voluntary for process in family(service).values())


def libraries(process: psutil.Process) -> set[str]:
    """Return the files that a process has mapped."""
    return {mapped.path for mapped in process.memory_maps()}


def test_an_idle_service_is_small_and_quiet_and_a_worker_never_loads_onnxruntime(idle: Service) -> None:
    with idle:
        assert memory_mb(idle) <= MAX_PSS_MB
        time.sleep(2.0)  # let work that remains from the start finish
        before, woken, begun = cpu_s(idle), wakes(idle), time.monotonic()
        time.sleep(10.0)
        passed_s = time.monotonic() - begun
        share, woken = (cpu_s(idle) - before) / passed_s, wakes(idle) - woken
        # This is processor time, not elapsed time, so a busy machine does not change it.
        assert share < MAX_IDLE_CPU
        assert woken < MAX_WAKES * passed_s
        loaded = {name: libraries(process) for name, process in family(idle).items()}
    assert any("onnxruntime" in library for library in loaded["inference"])
    for name in ("worker", "supervisor"):
        assert not any("onnxruntime" in library for library in loaded[name])
        # Only PyAV's FFmpeg can be avoided; OpenCV always loads FFmpeg libraries of its own.
        assert not any("/av.libs/" in library for library in loaded[name])
    assert not any("/cv2/" in library for library in loaded["supervisor"])
