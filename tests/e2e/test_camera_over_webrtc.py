"""What a person at the demo page sees: each image of a real video with the boxes of a reference model.

`pytest --full` watches for 60 s.
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

#: Persons with a score around a threshold may be there or not after a lossy codec; these must be there.
CLEAR = 0.6
#: Images that are compared with the reference; it takes a model run each.
COMPARED = 60


@pytest.fixture(scope="module")
def images() -> list[Image]:
    """People who walk by one after the other: the part where they are quickest."""
    return film(shared("data/video/one-by-one-person-detection.mp4"), 54, 16)


@pytest.fixture(scope="module")
def browser(images: list[Image], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    camera = write_film(tmp_path_factory.mktemp("camera") / "people.mjpeg", images)
    with sync_playwright() as playwright, chromium(playwright, camera=camera) as running:
        yield running


class Reference:
    """Persons on the camera's images before any video codec saw them."""

    def __init__(self, model: Path, images: list[Image]) -> None:
        self._detector = Detector(model, version="v1", device="cpu", batch_max=1)
        self._images = images
        self._known: dict[int, list[list[float]]] = {}

    def clear_persons(self, number: int) -> list[list[float]]:
        """Return boxes (xyxy, pixels) of the persons that nobody can overlook."""
        # The same scene for three images of the camera: the video has ten a second.
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
        """Give the model back."""
        self._detector.close()


def best_overlaps(reference: Reference, number: int, boxes: list[list[float]]) -> list[float]:
    """Return for each clear person of an image the IoU of the best box that was shown."""
    shown = [box[:4] for box in boxes if box[5] == 0]
    return [
        max((iou(person, box) for box in shown), default=0.0) for person in reference.clear_persons(number)
    ]


def counts(service: Service) -> dict[str, float]:
    """Return frames of WebRTC by what became of them, as the service counts them."""
    name = "object_detection_frames_{}_total".format
    late = sum(
        service.metric(name("dropped"), transport="webrtc", reason=reason)
        for reason in ("superseded", "stale", "rate")
    )
    received = service.metric(name("received"), transport="webrtc")
    return {"received": received, "late": late}


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
        before, results_before = counts(service), demo.evaluate("demo.counts.results")
        demo.page.wait_for_timeout(1000 * seconds)
        # Where the processor draws the screen, it may be drawn less often than results come.
        demo.wait(f"window.record.shown.length >= {COMPARED}", timeout_s=90)
        after, results = counts(service), demo.evaluate("demo.counts.results") - results_before
        lasted_s = time.monotonic() - begun
        demo.page.screenshot(path=tmp_path / "camera.png")
        record: dict[str, Any] = demo.evaluate("window.record")
        demo.assert_clean()
        demo.close()
    # What the model had no time for was replaced by a newer frame; everything else has a result at the page.
    examined = after["received"] - before["received"] - after["late"] + before["late"]
    # A frame or two are on their way at either end.
    assert results >= 0.95 * (examined - 4)
    shown = record["shown"]
    assert record["unread"] <= 0.05 * len(shown)

    reference = Reference(yolox_nano, images)
    own: list[float] = []
    others: list[float] = []
    for entry in shown[:: 1 if full else max(1, len(shown) // COMPARED)]:
        own += best_overlaps(reference, entry["number"], entry["boxes"])
        # Boxes that match images from elsewhere in the film as well would prove nothing.
        for third in (1, 2):
            other = (entry["number"] + third * len(images) // 3) % len(images)
            others += best_overlaps(reference, other, entry["boxes"])
    reference.close()
    # An image that the video element left out this time has the time of an earlier round of the film.
    round_ms = 1000 * len(images) / CAMERA_FPS
    waits = [entry["afterMs"] for entry in shown if 0 < (entry["afterMs"] or 0) < round_ms / 2]
    figures = {
        "seconds": round(lasted_s, 1),
        "arrived": after["received"] - before["received"],
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
    # People may stand still, or where others stood before: the means differ all the same.
    assert np.mean(own) > np.mean(others) + 0.05, figures
