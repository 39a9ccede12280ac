"""Bad files, wrong digests, labels that do not match and missing devices are refused with the reason."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.core import device as devices
from inference.core.errors import DeviceUnavailable, ModelRefused
from inference.engine import onnx_session
from inference.engine.detector import Detector
from tests.helpers import faulty_models
from tests.helpers import model_factory as factory
from tests.helpers.model_factory import DISTINCT, OBJECTS, Input


def load(path: Path, *, batch_max: int = 4, device: str = "cpu") -> Detector:
    return Detector(path, version="v1", device=device, batch_max=batch_max)


def warm(path: Path, *, inference_threads: int = 1, **options: Any) -> Detector:
    detector = load(path, **options)
    detector.warm_up(inference_threads=inference_threads)
    return detector


def written(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def truncated(path: Path) -> None:
    factory.null_model(path, size=64, objects=OBJECTS[:1])
    path.write_bytes(path.read_bytes()[:-300])


def outside(location: str) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        path.parent.joinpath("../weights.bin").write_bytes(bytes(4 * 6 * 84))
        target = path.parent / "link.bin"
        target.symlink_to("../weights.bin")
        faulty_models.external_data_model(path, location.format(folder=path.parent.parent))

    return make


def constant(array: Any, image: Input = factory.PLAIN, **options: Any) -> Callable[[Path], object]:
    return lambda path: factory.constant_model(path, {"o": array}, image, **options)


ROWS = factory.yolo_rows(OBJECTS, 3)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _: None, "no such file"),
    "a folder": (Path.mkdir, "directory"),
    "empty": (written(b""), "an empty file"),
    "zeros": (written(bytes(5000)), "zeros"),
    "a web page": (written(b"\n<!DOCTYPE html><html>"), "a web page"),
    "a pointer": (written(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "a checkpoint": (written(b"PK\x03\x04" + bytes(100)), "or export the model if it is a checkpoint"),
    "noise": (written(bytes(range(256)) * 8), "truncated, damaged or not ONNX"),
    "truncated": (truncated, "truncated"),
    "unknown operator": (faulty_models.unknown_operator_model, "Frobnicate"),
    "rank": (constant(np.zeros((1, 10), np.float32)), r"found `o` \[1, 10\]"),
    "too few columns": (constant(np.zeros((1, 4, 84), np.float32)), r"4 \+ classes, 84\]"),
    "input type": (constant(ROWS, Input(dtype=np.int64)), r"tensor\(int64\)"),
    "one row of outputs for all": (constant(ROWS, repeats=False), "2 for 2 frames"),
    "NaN": (constant(np.full_like(ROWS, np.nan)), "NaN in `o`"),
    "data above": (outside("../weights.bin"), "escapes model directory"),
    "data at an absolute path": (outside("{folder}/weights.bin"), "Absolute path not allowed"),
    "data behind a link": (outside("link.bin"), "escapes model directory"),
    "data missing": (outside("nowhere.bin"), "does not exist"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_file_is_refused_by_name_with_a_fix_within_moments(
    fault: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, text = FAULTS[fault]
    path = tmp_path / "folder" / "bad.onnx"
    path.parent.mkdir()
    make(path)
    begun = time.process_time()
    with pytest.raises(ModelRefused, match=text) as refusal:
        load(path)
    assert time.process_time() - begun < 5
    assert refusal.value.path == str(path)
    assert refusal.value.fix
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr().err == ""


def test_a_wrong_digest_is_refused(tmp_path: Path) -> None:
    path = factory.null_model(tmp_path / "m.onnx", size=64)
    (tmp_path / "m.json").write_text(json.dumps({"sha256": "0" * 64}))
    with pytest.raises(ModelRefused, match=r"sha256 0000.*m\.json says; found sha256"):
        load(path)


def test_labels_that_do_not_match_the_outputs_are_refused(tmp_path: Path) -> None:
    path = factory.constant_model(tmp_path / "m.onnx", {"o": factory.yolo_rows(OBJECTS, 3)})
    (tmp_path / "m.json").write_text('{"labels": ["a", "b"]}')
    with pytest.raises(ModelRefused, match=r"2 classes of its manifest's `labels`; found outputs for 3"):
        load(path)


def test_class_ids_beyond_the_labels_are_refused(tmp_path: Path) -> None:
    path = factory.constant_model(tmp_path / "m.onnx", factory.detr_ready(DISTINCT), Input(sizes=True))
    (tmp_path / "m.json").write_text('{"labels": ["a"]}')
    with pytest.raises(ModelRefused, match="found class id 1"):
        load(path)


@pytest.mark.parametrize("device", ["cuda", "tensorrt", "openvino"])
def test_an_explicit_device_that_is_missing_is_an_error(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "driver_fault", lambda: "there is no NVIDIA driver")
    with pytest.raises(DeviceUnavailable, match=f"DEVICE is '{device}'"):
        load(factory.null_model(tmp_path / "m.onnx", size=64), device=device)


def test_an_unknown_device_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailable, match="'tpu' is no device; allowed are auto, cpu, cuda"):
        load(tmp_path / "m.onnx", device="tpu")


def test_auto_is_the_cpu_without_a_word_where_there_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "driver_fault", lambda: "there is no NVIDIA driver")
    assert load(factory.null_model(tmp_path / "m.onnx", size=64), device="auto").model.provider == "cpu"
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def gpu_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a machine that has a GPU driver and lists its provider, but lacks the CUDA libraries."""
    cpu_only = onnx_session.load_session

    def load_session(path: Path, threads: int, providers: list[tuple[str, dict[str, Any]]]) -> Any:
        return cpu_only(path, threads, [entry for entry in providers if entry[0] == devices.PROVIDERS["cpu"]])

    monkeypatch.setattr(devices, "driver_fault", lambda: "")
    monkeypatch.setattr(onnx_session, "loading_fault", lambda _: "")
    monkeypatch.setattr(onnx_session, "preload_cuda", lambda: None)
    monkeypatch.setattr(onnx_session, "load_session", load_session)


@pytest.mark.usefixtures("gpu_that_does_not_load")
@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_falling_back_to_the_cpu_in_silence_is_not_allowed(device: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceUnavailable, match=f"'{device}', but .*ExecutionProvider does not load"):
        load(factory.null_model(tmp_path / "m.onnx", size=64), device=device)


@pytest.mark.usefixtures("gpu_that_does_not_load")
def test_auto_falls_back_with_a_warning_where_a_gpu_is_present(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    detector = warm(factory.null_model(tmp_path / "m.onnx", size=64), device="auto")
    assert detector.model.provider == "cpu"
    assert "there is a GPU" in caplog.text


@pytest.mark.usefixtures("gpu_that_does_not_load")
def test_a_bad_file_is_the_file_s_fault_on_every_device(tmp_path: Path) -> None:
    path = faulty_models.unknown_operator_model(tmp_path / "m.onnx")
    for device in ("auto", "cuda", "tensorrt"):
        with pytest.raises(ModelRefused, match="Frobnicate"):
            load(path, device=device)
