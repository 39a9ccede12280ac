"""Compares boxes with reference boxes that independent code computed for real images."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import av
import cv2
import numpy as np

from inference.core.detection_params import DetectionParams
from inference.engine.detector import Detector
from inference.preprocess.letterbox import Letterbox
from tests.conftest import SHARED

REFERENCE = SHARED / "data" / "reference" / "detections.json"
#: Maps each model to the threshold with which its reference was computed.
THRESHOLDS = {"yolox_nano": 0.25, "yolov9t_ball": 0.02}
MIN_IOU = 0.98
SCORE_TOLERANCE = 0.02

#: Name, encoded image, expected detections.
Image = tuple[str, bytes, list[dict[str, Any]]]
#: Label, score, box in pixels.
Found = tuple[str, float, list[float]]


def as_png(image: np.ndarray[Any, Any]) -> bytes:
    """Encode an image losslessly."""
    encoded, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert encoded
    return bytes(data)


@functools.cache
def images(model: str) -> tuple[Image, ...]:
    """Return all images and listed video frames of the model's reference; video frames are PNGs."""
    return tuple(_images(model))


def _images(model: str) -> Iterator[Image]:
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


def iou(a: list[float], b: list[float]) -> float:
    """Return intersection over union of two xyxy boxes."""
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return shared / (areas - shared)


def differences(found: Iterable[Found], expected: list[dict[str, Any]], floor: float) -> list[str]:
    """Return the missing, different and extra boxes; boxes that score at most ``floor`` may be absent."""
    rest = list(found)
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


def compare(model: str, ask: Callable[[bytes, float], list[Found]]) -> None:
    """Get the boxes of every reference image with ``ask``; fail with a list of all differences."""
    threshold = THRESHOLDS[model]
    compared = 0
    wrong = []
    for name, data, expected in images(model):
        compared += len(expected)
        faults = differences(ask(data, threshold), expected, threshold + SCORE_TOLERANCE)
        wrong += [f"{name}: {fault}" for fault in faults]
    assert compared > 0
    assert not wrong, "\n".join(wrong)


def detect(detector: Detector, images: Sequence[bytes], threshold: float) -> list[list[Found]]:
    """Run images through a detector as one batch; return the boxes of each."""
    slots = []
    letterboxes = []
    for data in images:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        letterboxes.append(Letterbox.fit(image.shape[1], image.shape[0], detector.model))
        slots.append(np.empty((detector.model.input_height, detector.model.input_width, 3), np.uint8))
        letterboxes[-1].write(image, slots[-1])
    raw = detector.infer(slots, thread=0)
    params = DetectionParams(conf_threshold=threshold)
    return [
        [
            (detector.model.labels[int(box[5])], float(box[4]), box[:4].tolist())
            for box in letterbox.to_source(detector.postprocess(raw, index, params))
        ]
        for index, letterbox in enumerate(letterboxes)
    ]
