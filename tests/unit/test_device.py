"""Tests which providers each device requests of ONNX Runtime, and how the GPU driver is queried."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import pytest

from inference.core import device as devices


def driver(status: int, count: int) -> Any:
    """Return a stand-in for libcuda.so.1 that initialises with ``status`` and reports ``count`` GPUs."""

    def count_devices(target: Any) -> int:
        target._obj.value = count
        return 0

    return SimpleNamespace(cuInit=lambda _: status, cuDeviceGetCount=count_devices)


@pytest.mark.parametrize(
    ("library", "fault"),
    [
        (driver(0, 1), ""),
        (driver(0, 0), "reports no GPU"),
        (driver(803, 1), "error 803"),
        (SimpleNamespace(), "not an NVIDIA driver"),
        (None, "no NVIDIA driver"),
    ],
)
def test_the_driver_tells_whether_there_is_a_gpu(
    library: Any, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str) -> Any:
        assert name == "libcuda.so.1"
        if library is None:
            raise OSError(name)
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    said = devices.driver_fault()
    assert fault in said
    assert bool(said) is bool(fault)
    assert devices.has_driver() is (library is not None)


@pytest.mark.parametrize("device", devices.PROVIDERS)
def test_each_device_asks_for_its_provider_first_and_the_cpu_last(device: str) -> None:
    names = [name for name, _ in devices.chain(device)]
    assert names[0] == devices.PROVIDERS[device]
    assert names[-1] == devices.PROVIDERS["cpu"]


def test_without_a_cache_no_engine_is_written_anywhere() -> None:
    (_, options), *_ = devices.chain("tensorrt")
    assert options == {}
