"""Real models on real photographs and video frames: the boxes equal those that independent code computed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from inference.detections import Boxes, DetectionParams
from inference.detector import Detector
from inference.letterbox import Letterbox

SHARED = Path(__file__).parents[3] / "shared"
REFERENCE = SHARED / "data" / "reference" / "detections.json"

pytestmark = pytest.mark.skipif(
    not REFERENCE.is_file(), reason="needs the shared models and media beside the repository"
)

#: Model to the threshold that its reference was computed with.
THRESHOLDS = {"yolox_nano": 0.25, "yolov9t_ball": 0.02}
MIN_IOU = 0.98
SCORE_TOLERANCE = 0.02


@pytest.fixture(scope="module", params=THRESHOLDS)
def detector(request: pytest.FixtureRequest) -> Iterator[Detector]:
    model = Detector(
        SHARED / "models" / f"{request.param}.onnx", version="v1", device="cpu", batch_max=1, lanes=1
    )
    model.warm_up()
    yield model
    model.close()


def as_png(picture: np.ndarray[Any, Any]) -> bytes:
    encoded, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert encoded
    return bytes(data)


def pictures(model: str) -> Iterator[tuple[str, bytes, list[dict[str, Any]]]]:
    """Yield name, encoded image and expected detections of every image and listed video frame."""
    for key, entries in json.loads(REFERENCE.read_text())[model].items():
        path = SHARED / "data" / key
        if key.startswith("images/"):
            yield key, path.read_bytes(), entries
            continue
        wanted = {entry["frame"]: entry["detections"] for entry in entries}
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in wanted:
                    yield f"{key}#{number}", as_png(frame.to_ndarray(format="bgr24")), wanted.pop(number)
                if not wanted:
                    break
        assert not wanted, f"{key} ends before frames {sorted(wanted)}"


def detect(detector: Detector, data: bytes, threshold: float) -> Boxes:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    letterbox = Letterbox.fit(image.shape[1], image.shape[0], detector.model)
    slot = np.empty((letterbox.input_height, letterbox.input_width, 3), np.uint8)
    letterbox.write(image, slot)
    raw = detector.infer([slot], lane=0)
    return letterbox.to_source(detector.postprocess(raw, 0, DetectionParams(conf_threshold=threshold)))


def iou(a: list[float], b: list[float]) -> float:
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return shared / (areas - shared)


def differences(
    found: Boxes, expected: list[dict[str, Any]], labels: tuple[str, ...], floor: float
) -> list[str]:
    """Return what is missing, other or extra; below ``floor`` either side may leave a box out."""
    rest = [(labels[int(box[5])], float(box[4]), box[:4].tolist()) for box in found]
    wrong = []
    for entry in expected:
        same = [
            item
            for item in rest
            if item[0] == entry["label"]
            and abs(item[1] - entry["score"]) <= SCORE_TOLERANCE
            and iou(item[2], entry["box"]) >= MIN_IOU
        ]
        if same:
            rest.remove(max(same, key=lambda item: iou(item[2], entry["box"])))
        elif entry["score"] > floor:
            wrong.append(f"missing {entry}")
    return wrong + [f"extra {item}" for item in rest if item[1] > floor]


def test_boxes_equal_the_reference(detector: Detector) -> None:
    """Same label, IoU of 0.98 or more, score within 0.02, nothing missing and nothing extra."""
    threshold = THRESHOLDS[detector.model.name]
    compared = 0
    wrong = []
    for name, data, expected in pictures(detector.model.name):
        found = detect(detector, data, threshold)
        compared += len(expected)
        faults = differences(found, expected, detector.model.labels, threshold + SCORE_TOLERANCE)
        wrong += [f"{name}: {fault}" for fault in faults]
    assert compared > 0
    assert not wrong, "\n".join(wrong)


def test_the_comparison_notices_what_is_missing_moved_or_extra() -> None:
    entry = {"label": "a", "score": 0.9, "box": [10.0, 10.0, 110.0, 110.0]}
    good = np.array([[10, 10, 110, 110, 0.9, 0]], np.float32)
    assert differences(good, [entry], ("a", "b"), 0.27) == []
    for column, value in ((0, 14), (4, 0.87), (5, 1)):
        bad = good.copy()
        bad[0, column] = value
        assert len(differences(bad, [entry], ("a", "b"), 0.27)) == 2
    assert len(differences(good[:0], [entry], ("a", "b"), 0.27)) == 1
    assert len(differences(np.repeat(good, 2, axis=0), [entry], ("a", "b"), 0.27)) == 1
