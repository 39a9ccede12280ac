"""Real models on real photographs and video frames: the boxes equal those that independent code computed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import msgpack
import pytest

from inference.engine.detector import Detector
from tests.conftest import SHARED
from tests.helpers.reference import (
    REFERENCE,
    SCORE_TOLERANCE,
    THRESHOLDS,
    Found,
    compare,
    detect,
    differences,
    images,
)
from tests.helpers.service import Service
from tests.helpers.wire_client import WireClient

pytestmark = pytest.mark.skipif(
    not REFERENCE.is_file(), reason="needs the shared models and media beside the repository"
)

#: For each model, the version under which the shared service serves it.
VERSIONS = {"yolox_nano": "v1", "yolov9t_ball": "v2"}


@pytest.fixture(scope="module", params=THRESHOLDS)
def detector(request: pytest.FixtureRequest) -> Iterator[Detector]:
    model = Detector(SHARED / "models" / f"{request.param}.onnx", version="v1", device="cpu", batch_max=1)
    model.warm_up()
    yield model
    model.close()


def test_boxes_equal_the_reference(detector: Detector) -> None:
    """Each box has a reference box with the same label, an IoU of 0.98 or more and a score within 0.02.

    No box is missing, and none is extra.
    """
    compare(detector.model.name, lambda data, threshold: detect(detector, [data], threshold)[0])


def as_multipart(data: bytes) -> tuple[bytes, str]:
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    return (
        head.encode() + data + f"\r\n--{boundary}--\r\n".encode(),
        f"multipart/form-data; boundary={boundary}",
    )


@pytest.mark.parametrize("model", THRESHOLDS)
@pytest.mark.parametrize("body", ["raw", "multipart"])
@pytest.mark.parametrize("accept", ["application/json", "application/msgpack"])
def test_posts_equal_the_reference(service: Service, model: str, body: str, accept: str) -> None:
    def post(data: bytes, threshold: float) -> list[Found]:
        payload, kind = as_multipart(data) if body == "multipart" else (data, "application/octet-stream")
        url = f"{service.http_url}/{VERSIONS[model]}/predict?conf_threshold={threshold}"
        request = Request(url, payload, {"Content-Type": kind, "Accept": accept})  # noqa: S310 - loopback
        with urlopen(request, timeout=120) as answer:  # noqa: S310 - loopback
            assert answer.headers["Content-Type"].startswith(accept)
            text = answer.read()
        answered: dict[str, Any] = json.loads(text) if accept == "application/json" else msgpack.unpackb(text)
        assert answered["model"]["name"] == model
        return [(found["label"], found["score"], found["box"]) for found in answered["detections"]]

    compare(model, post)


@pytest.mark.parametrize("model", THRESHOLDS)
@pytest.mark.parametrize("subprotocol", ["detect.v1.msgpack", "detect.v1.json"])
async def test_streams_equal_the_reference(service: Service, model: str, subprotocol: str) -> None:
    threshold = THRESHOLDS[model]
    wrong = []
    url = f"{service.ws_url}/{VERSIONS[model]}/stream"
    async with WireClient(url, subprotocol=subprotocol) as client:
        welcome = await client.hello(params={"conf_threshold": threshold})
        labels = welcome["model"]["labels"]
        for seq, (name, data, expected) in enumerate(images(model), start=1):
            codec = "png" if data[:4] == b"\x89PNG" else "jpeg"
            await client.send_frame(seq, data, codec=codec)
            result = await client.receive("result")
            assert result["seq"] == seq
            found = [(labels[int(box[5])], box[4], box[:4]) for box in result["boxes"]]
            faults = differences(found, expected, threshold + SCORE_TOLERANCE)
            wrong += [f"{name}: {fault}" for fault in faults]
    assert seq > 2
    assert not wrong, "\n".join(wrong)


def test_the_comparison_notices_what_is_missing_moved_or_extra() -> None:
    entry = {"label": "a", "score": 0.9, "box": [10.0, 10.0, 110.0, 110.0]}
    good: Found = ("a", 0.9, [10.0, 10.0, 110.0, 110.0])
    assert differences([good], [entry], 0.27) == []
    moved: Found = ("a", 0.9, [14.0, 10.0, 110.0, 110.0])
    for bad in (moved, ("a", 0.87, good[2]), ("b", 0.9, good[2])):
        assert len(differences([bad], [entry], 0.27)) == 2
    assert len(differences([], [entry], 0.27)) == 1
    assert len(differences([good, good], [entry], 0.27)) == 1
