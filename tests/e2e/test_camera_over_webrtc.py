"""Tests that the demo page shows each image of a real video with the boxes that a reference run finds in it.

The test watches for 8 s, with `pytest --full` for 60 s.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, sync_playwright

from inference.core.detection_params import DetectionParams
from inference.engine.detector import Detector
from inference.preprocess.letterbox import Letterbox
from tests.conftest import shared
from tests.e2e.browser import DemoPage, Image, chromium
from tests.e2e.numbered_camera import CAMERA_FPS, RECORD, film, write_film
from tests.helpers.reference import iou
from tests.helpers.service import Service

pytestmark = pytest.mark.browser

#: Score from which a person must be found. After a lossy codec, lower scores may fall below the threshold.
CLEAR = 0.6
#: Number of images that are compared with the reference; each of them needs a run of the model.
COMPARED = 60


@pytest.fixture(scope="module")
def images() -> list[Image]:
    """Return the camera's images: people walk past one by one, in the part of the video with the fastest."""
    return film(shared("data/video/one-by-one-person-detection.mp4"), 54, 16)


@pytest.fixture(scope="module")
def browser(images: list[Image], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    camera = write_film(tmp_path_factory.mktemp("camera") / "people.mjpeg", images)
    with sync_playwright() as playwright, chromium(playwright, camera=camera) as running:
        yield running


class Reference:
    """Finds persons in the camera's images before a video codec has encoded them."""

    def __init__(self, model: Path, images: list[Image]) -> None:
        self._detector = Detector(model, version="v1", device="cpu", batch_max=1)
        self._images = images
        self._known: dict[int, list[list[float]]] = {}

    def clear_persons(self, number: int) -> list[list[float]]:
        """Return the boxes (xyxy, pixels) of the persons with a score of at least `CLEAR` in an image."""
        # Results are kept by number, because the same image may be asked for several times.
        if number not in self._known:
            image = self._images[number]
            letterbox = Letterbox.fit(image.shape[1], image.shape[0], self._detector.model)
            slot = np.empty((letterbox.input_height, letterbox.input_width, 3), np.uint8)
            letterbox.write(image, slot)
            raw = self._detector.infer([slot], thread=0)
            found = letterbox.to_source(
                self._detector.postprocess(raw, 0, DetectionParams(conf_threshold=CLEAR))
            )
            self._known[number] = [row[:4] for row in found.tolist() if row[5] == 0]
        return self._known[number]

    def close(self) -> None:
        """Release the model."""
        self._detector.close()


def best_overlaps(reference: Reference, number: int, boxes: list[list[float]]) -> list[float]:
    """Return for each clear person of an image the IoU with the best of the boxes that were shown."""
    shown = [box[:4] for box in boxes if box[5] == 0]
    return [
        max((iou(person, box) for box in shown), default=0.0) for person in reference.clear_persons(number)
    ]


def inferred(service: Service) -> float:
    """Return how many WebRTC frames the model has run."""
    return service.metric("object_detection_frames_inferred_total", transport="webrtc")


def test_each_image_has_the_boxes_of_the_reference(
    browser: Browser, yolox_nano: Path, images: list[Image], tmp_path: Path, full: bool
) -> None:
    seconds = 60 if full else 8
    with Service({"MODEL_V1_PATH": str(yolox_nano), "STREAM_MIN_FPS": "0"}) as service:
        demo = DemoPage(browser, service.http_url)
        demo.open("?transport=webrtc&view=synced")
        demo.start("camera")
        demo.wait_for_results(10)
        demo.wait("demo.drawn")
        demo.evaluate(RECORD)
        begun = time.monotonic()
        # Results are counted first here and last below, so that reading the metric takes none away.
        results_before = demo.evaluate("demo.counts.results")
        before = inferred(service)
        demo.page.wait_for_timeout(1000 * seconds)
        # Where the CPU draws the page, Chromium may draw it less often than results arrive.
        demo.wait(f"window.record.shown.length >= {COMPARED}", timeout_s=90)
        examined = inferred(service) - before
        results = demo.evaluate("demo.counts.results") - results_before
        lasted_s = time.monotonic() - begun
        demo.page.screenshot(path=tmp_path / "camera.png")
        record: dict[str, Any] = demo.evaluate("window.record")
        demo.assert_clean()
        demo.close()
    # Newer frames replaced those that the model had no time for. The page has a result for all others, except
    # for one or two in flight at the beginning and at the end.
    assert results >= 0.95 * (examined - 4)
    shown = record["shown"]
    assert record["unread"] <= 0.05 * len(shown)

    reference = Reference(yolox_nano, images)
    own: list[float] = []
    others: list[float] = []
    for entry in shown[:: 1 if full else max(1, len(shown) // COMPARED)]:
        own += best_overlaps(reference, entry["number"], entry["boxes"])
        # If the boxes also matched images from elsewhere in the film, a match would prove nothing.
        for third in (1, 2):
            other = (entry["number"] + third * len(images) // 3) % len(images)
            others += best_overlaps(reference, other, entry["boxes"])
    reference.close()
    # If the video element skipped an image in this round of the film, the recorded capture time of this image
    # is from an earlier round.
    round_ms = 1000 * len(images) / CAMERA_FPS
    waits = [entry["afterMs"] for entry in shown if 0 < (entry["afterMs"] or 0) < round_ms / 2]
    figures = {
        "seconds": round(lasted_s, 1),
        "examined": examined,
        "results": results,
        "shown": len(shown),
        "unread": record["unread"],
        "persons": len(own),
        "iou_median": round(float(np.median(own)), 3),
        "iou_p5": round(float(np.quantile(own, 0.05)), 3),
        "share_over_0.8": round(float(np.mean(np.array(own) >= 0.8)), 4),
        "iou_median_elsewhere": round(float(np.median(others)), 3),
        "iou_mean_elsewhere": round(float(np.mean(others)), 3),
        "capture_to_box_ms_p50": round(float(np.median(waits)), 1),
        "capture_to_box_ms_p95": round(float(np.quantile(waits, 0.95)), 1),
    }
    print(json.dumps(figures))  # noqa: T201 - for whoever asks with -s
    (tmp_path / "figures.json").write_text(json.dumps(figures))
    assert len(own) > 20
    assert np.mean(np.array(own) >= 0.8) >= 0.95, figures
    # People may stand still, or stand where others stood before, so some boxes match elsewhere too. The means
    # still differ.
    assert np.mean(own) > np.mean(others) + 0.05, figures
