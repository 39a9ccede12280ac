"""Tests on a real GPU that boxes equal the reference (also in batches and half precision), and memory use."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import msgpack
import numpy as np
import pytest

from inference.engine.detector import Detector
from inference.engine.process import EXIT_DEVICE_UNAVAILABLE
from tests.conftest import ROOT, SHARED
from tests.helpers.gpu import NEEDS_GPU
from tests.helpers.reference import (
    REFERENCE,
    SCORE_TOLERANCE,
    THRESHOLDS,
    compare,
    detect,
    differences,
    images,
)
from tests.helpers.service import Service

pytestmark = [
    pytest.mark.alone,
    *NEEDS_GPU,
    pytest.mark.skipif(not REFERENCE.is_file(), reason="needs the shared models and media"),
]


@pytest.fixture(scope="module", params=THRESHOLDS)
def detector(request: pytest.FixtureRequest) -> Iterator[Detector]:
    model = Detector(SHARED / "models" / f"{request.param}.onnx", version="v1", device="cuda", batch_max=8)
    model.warm_up(inference_threads=2)
    assert model.model.provider == "cuda"
    yield model
    model.close()


def test_boxes_equal_the_reference(detector: Detector) -> None:
    compare(detector.model.name, lambda data, threshold: detect(detector, [data], threshold)[0])


def test_boxes_of_a_batch_equal_the_reference(detector: Detector) -> None:
    """Test batches of every size, including those that fill a bucket only partly."""
    threshold = THRESHOLDS[detector.model.name]
    entries = list(images(detector.model.name))
    wrong = []
    for size in range(1, detector.buckets[-1] + 1):
        random.Random(size).shuffle(entries)
        batch = (entries * size)[:size]
        for (name, _, expected), found in zip(
            batch, detect(detector, [data for _, data, _ in batch], threshold), strict=True
        ):
            faults = differences(found, expected, threshold + SCORE_TOLERANCE)
            wrong += [f"{name} in a batch of {size}: {fault}" for fault in faults]
    assert not wrong, "\n".join(wrong)


def used_mib() -> int:
    answer = subprocess.run(
        ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(answer.stdout.split()[0])


def test_memory_stays_as_it_was_after_the_warm_up(detector: Detector) -> None:
    """Run every batch size in two threads at once; no other program may use the GPU meanwhile."""
    frame = np.zeros((detector.model.input_height, detector.model.input_width, 3), np.uint8)

    def run(thread: int, rounds: int) -> None:
        for number in range(rounds):
            detector.infer([frame] * ((number + thread) % detector.buckets[-1] + 1), thread=thread)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(run, (0, 1), (20, 20)))  # let each thread create its own handles
        before = used_mib()
        list(threads.map(run, (0, 1), (1_000, 1_000)))
        assert used_mib() <= before + 8


def test_a_model_in_half_precision_finds_the_same(tmp_path: Path) -> None:
    """Test a model that `streamer models optimize --for gpu` has written."""
    model, half = SHARED / "models" / "yolov9t_ball.onnx", tmp_path / "yolov9t_ball.onnx"
    command = ["models", "optimize", str(model), "--for", "gpu", "--to", str(half)]
    done = subprocess.run(
        [sys.executable, "-m", "streamer", *command, "--images", str(SHARED / "data" / "images")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    detector = Detector(half, version="v1", device="cuda", batch_max=8)
    detector.warm_up()
    compare(model.stem, lambda data, threshold: detect(detector, [data], threshold)[0])


@pytest.fixture(scope="module")
def on_gpu(yolox_nano: Path, yolov9t_ball: Path) -> Iterator[Service]:
    """Run the real service with DEVICE at its default, which is auto."""
    with Service({"MODEL_V1_PATH": str(yolox_nano), "MODEL_V2_PATH": str(yolov9t_ball)}) as service:
        yield service


def test_auto_takes_the_gpu(on_gpu: Service) -> None:
    for version in ("v1", "v2"):
        assert on_gpu.metric("object_detection_model_info", version=version, provider="cuda") == 1
        assert on_gpu.metric("object_detection_gpu_fallback", version=version) == 0


async def test_posts_that_meet_in_batches_equal_the_reference(on_gpu: Service) -> None:
    model, url = "yolov9t_ball", f"{on_gpu.http_url}/v2/predict"
    threshold = THRESHOLDS[model]
    wrong: list[str] = []
    async with aiohttp.ClientSession(headers={"Accept": "application/msgpack"}) as session:

        async def ask(name: str, data: bytes, expected: list[dict[str, object]]) -> None:
            async with session.post(url, params={"conf_threshold": threshold}, data=data) as answer:
                assert answer.status == 200
                answered = msgpack.unpackb(await answer.read())
            found = [(box["label"], box["score"], box["box"]) for box in answered["detections"]]
            wrong.extend(
                f"{name}: {fault}" for fault in differences(found, expected, threshold + SCORE_TOLERANCE)
            )

        await asyncio.gather(*(ask(*image) for image in images(model) * 8))
    assert not wrong, "\n".join(wrong)
    batches = on_gpu.metric("object_detection_batch_size_count", version="v2")
    frames = on_gpu.metric("object_detection_batch_size_sum", version="v2")
    assert frames > batches, "some ran together"


def test_tensorrt_serves_or_is_refused_with_what_is_missing(yolox_nano: Path, tmp_path: Path) -> None:
    settings = {"DEVICE": "tensorrt", "ENGINE_CACHE_DIR": str(tmp_path)}
    service = Service({"MODEL_V1_PATH": str(yolox_nano)} | settings)
    try:
        service.wait_ready(timeout_s=150)
    except AssertionError as error:
        assert f"exited with {EXIT_DEVICE_UNAVAILABLE}" in str(error)
        assert "TensorRT 10" in service.log
    else:
        assert service.metric("object_detection_model_info", version="v1", provider="tensorrt") == 1
    finally:
        service.stop()
