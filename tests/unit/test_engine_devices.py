"""Which engines a value of DEVICE makes, the cores of those on a CPU, and the device of each process."""

from __future__ import annotations

import os

import pytest

from inference.core import device as devices
from inference.core.device import Device, parse_devices
from inference.core.errors import DeviceUnavailable
from streamer.supervisor import engine_devices
from streamer.supervisor.engine_devices import cores_of, devices_of


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cpu", ("cpu",)),
        ("cuda:0, cuda:1", ("cuda:0", "cuda:1")),
        ("tensorrt:3,openvino:NPU,cpu", ("tensorrt:3", "openvino:NPU", "cpu")),
        ("openvino", ("openvino",)),
    ],
)
def test_a_list_of_devices_is_parsed(text: str, found: tuple[str, ...]) -> None:
    assert parse_devices(text) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("gpu", "'gpu' is no device; allowed are auto, cpu, cuda"),
        ("cuda:x", "'cuda:x' is no device"),
        ("openvino:gpu", "openvino:CPU, :GPU or :NPU"),
        ("cpu,", "'' is no device"),
        ("auto,cpu", "`auto` stands alone"),
        (",".join(["cpu"] * 17), "17 devices; at most 16"),
    ],
)
def test_a_wrong_list_says_what_is_allowed(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_devices(text)


@pytest.mark.parametrize(("gpus", "found"), [(0, ("auto",)), (1, ("auto",)), (2, ("auto:0", "auto:1"))])
def test_auto_takes_every_gpu(gpus: int, found: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_devices, "_gpu_count", lambda: gpus)
    assert devices_of("auto") == found
    assert devices_of("cpu,cpu") == ("cpu", "cpu")


def test_engines_on_the_cpu_divide_the_cores_by_memory_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(engine_devices, "_node_of", lambda core: core % 2)
    assert cores_of(("cpu", "cuda:0", "cpu")) == [(0, 2, 4, 6), (), (1, 3, 5, 7)]
    assert [len(part) for part in cores_of(("cpu", "cpu", "cpu"))] == [2, 3, 3]


def test_one_engine_on_the_cpu_may_use_all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cores_of(("cpu",)) == [()]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert cores_of(("cpu", "cpu")) == [(), ()]


@pytest.mark.parametrize(
    ("before", "device", "after"),
    [("", "cuda:1", "1"), ("4,GPU-7", "tensorrt:1", "GPU-7"), ("4", "auto:0", "4"), ("2,3", "cuda", "2,3")],
)
def test_a_process_sees_its_own_gpu_only(
    before: str, device: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_chosen", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    assert devices.select(device) == device.partition(":")[0]
    assert devices.select(device) == device.partition(":")[0], "each model asks for it"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == after


def test_a_process_uses_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_chosen", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    devices.select("cuda:0")
    with pytest.raises(DeviceUnavailable, match="uses GPU 0 already"):
        devices.select("cuda:1")


def test_openvino_gets_its_device() -> None:
    assert devices.select("openvino:NPU") == str(Device("openvino", "NPU"))
    assert [devices.chain(name)[0][1] for name in ("openvino", "openvino:GPU")] == [
        {"device_type": "CPU"},
        {"device_type": "GPU"},
    ]
