"""Tests that DEVICE=auto serves from the CPU, and says so in metrics, when the GPU driver is unusable."""

from __future__ import annotations

import ctypes.util
import shutil
from pathlib import Path

import pytest

from tests.helpers.model_factory import null_model
from tests.helpers.service import Service
from tests.helpers.waiting import wait_for


@pytest.fixture
def broken_driver(tmp_path: Path) -> Path:
    """Return a folder with a file libcuda.so.1 that is really another library."""
    libm = next((path for path in Path("/lib").glob("*-linux-gnu/libm.so.6")), None)
    if libm is None:
        pytest.skip("needs libm.so.6 in /lib/*-linux-gnu to stand in for a driver")
    shutil.copy(libm, tmp_path / "libcuda.so.1")
    return tmp_path


def test_a_driver_that_does_not_work_is_counted_as_a_fallback(broken_driver: Path, tmp_path: Path) -> None:
    model = str(null_model(tmp_path / "null.onnx"))
    with Service({"MODEL_V1_PATH": model, "LD_LIBRARY_PATH": str(broken_driver)}) as service:
        wait_for(lambda: service.metric("object_detection_model_info", provider="cpu") == 1)
        wait_for(lambda: service.metric("object_detection_gpu_fallback", version="v1") == 1)


@pytest.mark.skipif(ctypes.util.find_library("cuda") is not None, reason="this machine has a driver")
def test_without_a_driver_the_cpu_is_no_fallback(tmp_path: Path) -> None:
    with Service({"MODEL_V1_PATH": str(null_model(tmp_path / "null.onnx"))}) as service:
        assert "object_detection_gpu_fallback" in service.get("/metrics")[1].decode()
        assert service.metric("object_detection_gpu_fallback") == 0
