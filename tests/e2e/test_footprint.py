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


def usage(service: Service, seconds: float) -> tuple[float, float]:
    """Return the share of a core that the service uses for this time, and its wake-ups per second."""
    used_s, woken, begun = cpu_s(service), wakes(service), time.monotonic()
    time.sleep(seconds)
    passed_s = time.monotonic() - begun
    return (cpu_s(service) - used_s) / passed_s, (wakes(service) - woken) / passed_s


def libraries(process: psutil.Process) -> set[str]:
    """Return the files that a process has mapped."""
    return {mapped.path for mapped in process.memory_maps()}


def test_an_idle_service_is_small_and_quiet_and_a_worker_never_loads_onnxruntime(idle: Service) -> None:
    with idle:
        assert memory_mb(idle) <= MAX_PSS_MB
        time.sleep(2.0)  # let work that remains from the start finish
        # This is processor time, not elapsed time. On a slow machine the work of the start takes longer, so
        # the service may become quiet later; one that spins never does.
        for _ in range(6):
            share, wakes_per_s = usage(idle, 10.0)
            if share < MAX_IDLE_CPU and wakes_per_s < MAX_WAKES:
                break
        assert share < MAX_IDLE_CPU
        assert wakes_per_s < MAX_WAKES
        loaded = {name: libraries(process) for name, process in family(idle).items()}
    assert any("onnxruntime" in library for library in loaded["inference"])
    for name in ("worker", "supervisor"):
        assert not any("onnxruntime" in library for library in loaded[name])
        # Only PyAV's FFmpeg can be avoided; OpenCV always loads FFmpeg libraries of its own.
        assert not any("/av.libs/" in library for library in loaded[name])
    assert not any("/cv2/" in library for library in loaded["supervisor"])
