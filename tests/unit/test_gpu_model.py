"""Models edited to take raw frames from the ring see the same numbers, whatever preprocessing they need."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from inference.core import device as devices
from inference.core.detection_params import DetectionParams
from inference.core.errors import ModelRefused
from inference.engine import detector as detector_module
from inference.engine import onnx_session
from inference.engine.detector import Detector
from inference.engine.gpu_model import read_gpu_model
from inference.models.layout import CONVENTIONS, Convention
from inference.models.manifest import Colour
from inference.models.model import Family
from inference.models.signature import ImageInput
from inference.preprocess.preprocess import Preprocessor
from tests.helpers import faulty_models
from tests.helpers import model_factory as factory
from tests.helpers.model_factory import PLAIN, Input

PARAMS = DetectionParams()
YOLO = CONVENTIONS[Family.YOLO]
IMAGENET = dataclasses.replace(YOLO, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
WANTED = {
    "0 to 1, RGB": YOLO,
    "0 to 255, BGR": CONVENTIONS[Family.YOLOX],
    "ImageNet's": IMAGENET,
    "ImageNet's, BGR": dataclasses.replace(IMAGENET, colour=Colour.BGR),
    "offset alone": dataclasses.replace(YOLO, scale=1.0, mean=(128.0, 128.0, 128.0)),
}
INPUTS = {
    "dynamic batch": PLAIN,
    "fixed batch": Input(batch=2),
    "dynamic size": Input(dynamic_size=True),
    "not square": Input(width=96, height=64),
    "half precision": Input(dtype=np.float16),
}


def echo(path: Path, image: Input) -> Path:
    """Save a model that outputs its input unchanged."""
    sides: list[int | str] = ["height", "width"] if image.dynamic_size else [image.height, image.width]
    node = onnx.helper.make_node("Identity", ["images"], ["echo"])
    return factory.save(path, [node], {"echo": (image.dtype, [3, *sides])}, image)


@pytest.mark.parametrize("wanted", WANTED.values(), ids=WANTED)
@pytest.mark.parametrize("image", INPUTS.values(), ids=INPUTS)
def test_it_sees_what_the_normaliser_writes(tmp_path: Path, image: Input, wanted: Convention) -> None:
    batch = image.batch or 3
    given = ImageInput("images", image.dtype is np.float16, image.batch, image.width, image.height, None)
    edited = read_gpu_model(echo(tmp_path / "m.onnx", image), given, wanted)
    assert edited is not None
    model, fed = edited
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    assert (fed.name, fed.feed_name, fed.dtype) == ("images", "images_uint8", np.dtype(np.uint8))
    frames = np.random.default_rng(3).integers(0, 255, (batch, *fed.frame_shape), np.uint8, endpoint=True)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (seen,) = session.run(None, {fed.feed_name: frames})
    planes = np.empty((batch, *given.frame_shape), given.dtype)
    for frame, place in zip(frames, planes, strict=True):
        Preprocessor(wanted, image.width, image.height).fill(frame, place)
    # In half precision, `Preprocessor` rounds between factor and offset; the graph rounds only at the end.
    tolerance = 2e-3 if given.half else 0
    np.testing.assert_allclose(seen, planes, rtol=tolerance, atol=tolerance)


def test_files_that_cannot_be_edited_are_left_alone(tmp_path: Path) -> None:
    image = ImageInput("images", half=False, batch=None, width=64, height=64, sizes_name=None)
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no model")
    assert read_gpu_model(path, image, YOLO) is None
    assert read_gpu_model(tmp_path / "missing.onnx", image, YOLO) is None
    assert read_gpu_model(faulty_models.external_data_model(path, "weights"), image, YOLO) is None
    other = dataclasses.replace(image, name="pixels")
    assert read_gpu_model(echo(tmp_path / "e.onnx", PLAIN), other, YOLO) is None
    whole = echo(tmp_path / "cut.onnx", PLAIN).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert read_gpu_model(path, image, YOLO) is None


@pytest.fixture
def cpu_as_gpu(monkeypatch: pytest.MonkeyPatch) -> list[bytes | None]:
    """Run the detector's CUDA path on the CPU; return the loaded models, None for an unedited file."""
    load_session = onnx_session.load_session
    loaded: list[bytes | None] = []

    def load(path: Path, threads: int, providers: list[Any], model: bytes | None = None) -> Any:
        if providers == gpu:
            loaded.append(model)
        return load_session(path, threads, [("CPUExecutionProvider", {})], model)

    gpu = devices.chain("cuda")
    names = dict(devices.PROVIDERS) | {"cuda": "CPUExecutionProvider"}
    monkeypatch.setattr(devices, "chain", lambda device, **_: gpu if device == "cuda" else [])
    monkeypatch.setattr(devices, "PROVIDERS", names)
    monkeypatch.setattr(devices, "driver_fault", lambda: "")
    monkeypatch.setattr(onnx_session, "preload_cuda", lambda: None)
    monkeypatch.setattr(onnx_session, "load_session", load)
    return loaded


def solid(blue: int, green: int, red: int) -> np.ndarray[Any, Any]:
    return np.full((64, 64, 3), (blue, green, red), np.uint8)


def classes(detector: Detector) -> list[float]:
    """Return the classes found in batches of a red, a red and green, and a red, green and blue frame."""
    colours = [solid(0, 0, 255), solid(0, 255, 0), solid(255, 0, 0)]
    seen = []
    for count in (1, 2, 3):
        raw = detector.infer(colours[:count], thread=0)
        seen += [detector.postprocess(raw, index, PARAMS)[0, 5] for index in range(count)]
    return seen


def test_on_cuda_frames_go_in_raw_and_each_batch_size_has_its_session(
    tmp_path: Path, cpu_as_gpu: list[bytes | None]
) -> None:
    path = factory.colour_model(tmp_path / "m.onnx")
    detector = Detector(path, version="v1", device="cuda", batch_max=4)
    detector.warm_up(inference_threads=2)
    assert detector.model.provider == "cuda"
    assert detector.image.raw_name is not None
    assert classes(detector) == [0, 0, 1, 0, 1, 2]
    # The detector loads the file once to inspect it, then its edited form for batches of 1, 2 and 4.
    assert [model is None for model in cpu_as_gpu] == [True, False, False, False]
    sessions = {id(detector._runner.session_for(bucket)) for bucket in detector.buckets}
    assert len(sessions) == len(detector.buckets) == 3
    assert len(cpu_as_gpu) == 4, "all were made before the first frame"


def test_a_file_whose_edited_form_is_refused_serves_as_it_is(
    tmp_path: Path, cpu_as_gpu: list[bytes | None], monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def broken(path: Path, image: ImageInput, convention: Convention) -> tuple[bytes, ImageInput]:
        return b"no model", dataclasses.replace(image, raw_name="x")

    monkeypatch.setattr(detector_module, "read_gpu_model", broken)
    detector = Detector(factory.colour_model(tmp_path / "m.onnx"), version="v1", device="cuda", batch_max=4)
    detector.warm_up()
    assert classes(detector) == [0, 0, 1, 0, 1, 2]
    assert cpu_as_gpu == [None, b"no model", None, None]
    assert "edited for a GPU it fails" in caplog.text


@pytest.mark.parametrize("fits", [0, 1, 2])
def test_batches_that_do_not_fit_into_memory_are_done_without(
    tmp_path: Path,
    cpu_as_gpu: list[bytes | None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fits: int,
) -> None:
    """The first ``fits`` sessions of the edited model find enough memory; later ones do not."""
    load_session = onnx_session.load_session

    def load(path: Path, threads: int, providers: list[Any], model: bytes | None = None) -> Any:
        if sum(loaded is not None for loaded in cpu_as_gpu) >= fits and model is not None:
            raise ModelRefused(str(path), expected="x", found="CUDA failure 2: out of memory", fix="y")
        return load_session(path, threads, providers, model)

    monkeypatch.setattr(onnx_session, "load_session", load)
    path = factory.colour_model(tmp_path / "m.onnx")
    detector = Detector(path, version="v1", device="cuda", batch_max=4)
    detector.warm_up(inference_threads=2)
    if fits == 0:  # if no session fits, the unedited file is served, as after other faults
        assert detector.image.raw_name is None
        return
    assert detector.buckets == detector.model.buckets == tuple(detector.cost_s) == (1, 2)[:fits]
    assert f"BATCH_MAX={fits}" in caplog.text
    raw = detector.infer([solid(0, 255, 0)] * fits, thread=1)
    assert detector.postprocess(raw, fits - 1, PARAMS)[0, 5] == 1


def test_a_batch_that_fails_otherwise_is_still_a_refusal(
    tmp_path: Path, cpu_as_gpu: list[bytes | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(factory.colour_model(tmp_path / "m.onnx"), version="v1", device="cuda", batch_max=4)
    run = detector._runner.run

    def fail(frames: Any, *arguments: Any, **options: Any) -> Any:
        if len(frames) == 4:
            raise RuntimeError("an operator failed")
        return run(frames, *arguments, **options)

    monkeypatch.setattr(detector._runner, "run", fail)
    with pytest.raises(ModelRefused, match="an operator failed"):
        detector.warm_up(inference_threads=2)
