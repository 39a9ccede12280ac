"""Tests in the real image that nothing is missing: every way of sending frames, codes, a store and drift."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import cv2
import numpy as np
import pytest

from streamer.drift.engine import _encode_request
from tests.deploy.image import DRIFT_TAG, TAG, Container, Images
from tests.deploy.rules import ROOT
from tests.helpers.drift_rows import drifted_check
from tests.helpers.stores.faulty import FaultyS3
from tests.helpers.waiting import wait_for
from tests.helpers.webrtc_client import Track, WebrtcClient
from tests.helpers.wire_client import WireClient
from tests.unit.heif_files import libavif_file, libheif_file

pytestmark = pytest.mark.timeout(1800)

STILL = ROOT / "data" / "stills" / "belt.jpg"
SETTINGS = {
    "ALLOW_ANONYMOUS": "1",
    "READ_CODES": "1",
    "READ_CODES_BUDGET_MS": "5000",
    "SAMPLES_RANDOM_EVERY_S": "1",
    "STREAM_MAX_AGE_MS": "60000",
    "STREAM_MIN_FPS": "0",
}
#: Imports every module that the image may load, as far as a module's own dependencies are installed.
_IMPORT_ALL = """
import importlib, json, pkgutil, sys
failed = {}
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for found in pkgutil.walk_packages(package.__path__, f"{name}."):
        if found.name.rpartition(".")[2] in ("__main__", "conftest"):
            continue
        try:
            importlib.import_module(found.name)
        except Exception as error:
            failed[found.name] = f"{type(error).__name__}: {error}"
print(json.dumps(failed))
"""


@pytest.fixture(scope="module")
def store() -> Iterator[FaultyS3]:
    with FaultyS3() as running:
        yield running


@pytest.fixture(scope="module")
def running(images: Images, store: FaultyS3) -> Iterator[Container]:
    settings = SETTINGS | store.environment | {"S3_TIMEOUT_S": "30"}
    with Container(images, "vision-test-paths", settings) as container:
        yield container


async def post(container: Container, body: bytes) -> list[dict[str, Any]]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"http://127.0.0.1:{container.port}/v1/predict", data=body) as answer,
    ):
        found = await answer.json()
    assert answer.status == 200, found
    detections: list[dict[str, Any]] = found["detections"]
    return detections


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "heic", "avif"])
async def test_an_image_of_each_kind_is_read_with_its_codes(running: Container, kind: str) -> None:
    pixels = cv2.imread(str(STILL))
    assert pixels is not None
    makers: dict[str, Callable[[], bytes]] = {
        "jpeg": STILL.read_bytes,
        "png": lambda: cv2.imencode(".png", pixels)[1].tobytes(),
        "webp": lambda: cv2.imencode(".webp", pixels)[1].tobytes(),
        "heic": lambda: libheif_file(pixels),
        "avif": lambda: libavif_file(pixels),
    }
    assert "1042-7781" in {found.get("text") for found in await post(running, makers[kind]())}


async def test_frames_of_a_stream_are_answered(running: Container) -> None:
    async with WireClient(f"ws://127.0.0.1:{running.port}/v1/stream") as client:
        await client.hello()
        await client.send_frame(1, STILL.read_bytes())
        result = await client.receive("result", timeout_s=60)
    assert result["boxes"]


@pytest.mark.parametrize("codec", ["video/VP8", "video/H264"])
async def test_video_is_decoded(running: Container, codec: str) -> None:
    still = cv2.imread(str(STILL))
    assert still is not None
    picture = np.asarray(cv2.resize(still, (640, 480)))
    track = Track(lambda _: picture, fps=5)
    url = f"http://127.0.0.1:{running.port}/v1/webrtc"
    async with WebrtcClient(url, codec=codec, track=track) as client:
        results = await client.wait_for("result", 5)
    assert (results[-1]["width"], results[-1]["height"]) == (640, 480)
    assert results[-1]["boxes"]


async def test_samples_reach_a_bucket(running: Container, store: FaultyS3) -> None:
    for _ in range(3):
        await post(running, STILL.read_bytes())
    wait_for(lambda: any(key.endswith(".json") for key in store.objects), timeout_s=120)
    assert set(store.methods) <= {"PUT", "HEAD"}


def test_without_evidently_a_service_that_needs_it_does_not_start(images: Images) -> None:
    done = images.podman(
        *("run", "--rm", "--network", "none", "--read-only", "--ulimit", "nofile=1024:1024"),
        *("--ulimit", "nproc=512:512", "--env", "DRIFT_ENGINE=evidently", TAG),
        check=False,
    )
    assert done.returncode == 2
    assert re.search("DRIFT_ENGINE='evidently': .*evidently is not installed; use an image that", done.stderr)


def test_without_evidently_the_log_says_so_at_the_start(running: Container) -> None:
    wait_for(lambda: "there is no drift report: Evidently is not installed" in running.log(), timeout_s=60)


def test_with_it_the_service_starts_and_evidently_makes_the_report(
    drift_images: Images, capsys: pytest.CaptureFixture[str]
) -> None:
    images = drift_images
    size = images.inspect(DRIFT_TAG)["Size"] / 1e6
    settings = SETTINGS | {"DRIFT_ENGINE": "evidently"}
    with Container(images, "vision-test-drift", settings, tag=DRIFT_TAG) as container, capsys.disabled():
        print(f"\ncpu-drift: {size:.0f} MB, ready {container.start_s:.1f} s after podman run", flush=True)  # noqa: T201
    request = _encode_request([drifted_check()], {}, html=True).decode()
    arguments = ("-m", "streamer.drift.evidently_process", "1")
    answer = json.loads(images.python(*arguments, tag=DRIFT_TAG, timeout_s=300, given=request))
    assert len(answer["html"]) > 1_000_000
    assert answer["scores"]


def test_every_module_of_the_service_is_importable(images: Images) -> None:
    failed = json.loads(images.python("-c", _IMPORT_ALL, "streamer", "inference", timeout_s=300))
    # Tools that need an extra which the image does not have.
    assert {name for name, why in failed.items() if "No module named 'onnx'" not in why} == set()


def test_what_was_removed_breaks_no_module_of_another_package(images: Images) -> None:
    names = (
        "numpy",
        "cv2",
        "av",
        "aiohttp",
        "aiobotocore",
        "botocore",
        "aiortc",
        "aioice",
        "onnxruntime.capi",
    )
    failed = json.loads(images.python("-c", _IMPORT_ALL, *names, timeout_s=300))
    lost = {name: why for name, why in failed.items() if "tests" in why or "transformers.models" in why}
    assert lost == {}
