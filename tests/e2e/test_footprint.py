"""What an idle service costs, and which libraries each of its processes loads."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from bench.idle import cpu_s, family
from bench.overload import memory_mb
from tests.helpers.service import Service

#: Measured 307 on two cores of Zen 3, and up to 20 more with the fork server of the inference process; some
#: machines take 30 more.
MAX_PSS_MB = 370.0
#: Share of one core, all processes together.
MAX_IDLE_CPU = 0.01
#: Per second, all processes together: a wake-up alone may cost a millisecond on a virtual machine.
MAX_WAKES = 8


@pytest.fixture(scope="module")
def idle(yolox_nano: Path) -> Service:
    return Service({"MODEL_V1_PATH": str(yolox_nano)})


def wakes(service: Service) -> int:
    """Return how often the main threads have been woken."""
    return sum(process.num_ctx_switches().voluntary for process in family(service).values())


def libraries(process: psutil.Process) -> set[str]:
    """Return the files that a process has mapped."""
    return {mapped.path for mapped in process.memory_maps()}


def test_an_idle_service_is_small_and_quiet_and_a_worker_never_loads_onnxruntime(idle: Service) -> None:
    with idle:
        assert memory_mb(idle) <= MAX_PSS_MB
        time.sleep(2.0)  # what start-up left behind
        before, woken, begun = cpu_s(idle), wakes(idle), time.monotonic()
        time.sleep(10.0)
        passed_s = time.monotonic() - begun
        share, woken = (cpu_s(idle) - before) / passed_s, wakes(idle) - woken
        # Processor time, not a duration: a busy machine does not change it.
        assert share < MAX_IDLE_CPU
        assert woken < MAX_WAKES * passed_s
        loaded = {name: libraries(process) for name, process in family(idle).items()}
    assert any("onnxruntime" in library for library in loaded["inference"])
    for name in ("worker", "supervisor"):
        assert not any("onnxruntime" in library for library in loaded[name])
        # PyAV's; OpenCV brings some of its own, which cannot be left out.
        assert not any("/av.libs/" in library for library in loaded[name])
    assert not any("/cv2/" in library for library in loaded["supervisor"])
