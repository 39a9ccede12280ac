"""Tests the demo page in a real browser: its sources, overlay, views, and what it remembers."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser

from tests.conftest import shared
from tests.e2e.browser import DemoPage, Image, write_clip
from tests.e2e.conftest import HEIGHT, WIDTH
from tests.helpers.service import Service

pytestmark = pytest.mark.browser

MAGENTA = (255, 0, 255)
#: Class id of a bus, and the colour of this class in palette.js.
BUS_ID, BUS_COLOUR = 5, (0xFF, 0x78, 0x47)


def predicted(service: Service, image: Image) -> list[dict[str, Any]]:
    """Return the detections that a POST of the same image gets."""
    body = bytes(cv2.imencode(".png", image)[1])
    request = urllib.request.Request(f"{service.http_url}/v1/predict", data=body, method="POST")  # noqa: S310
    request.add_header("Content-Type", "image/png")
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - loopback
        found: list[dict[str, Any]] = json.load(answer)["detections"]
    return found


def overlap(first: list[float], second: list[float]) -> float:
    """Return the intersection over union of two boxes (xyxy)."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    common = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return common / (sum(areas) - common)


def overlay_pixel(demo: DemoPage, x: float, y: float, around: int = 2) -> list[tuple[int, ...]]:
    """Return the overlay's RGBA values in a square around a point, in canvas pixels."""
    values: list[int] = demo.evaluate(
        """([x, y, around]) => {
          const context = document.getElementById('overlay').getContext('2d');
          const side = 2 * around + 1;
          const [left, top] = [Math.round(x) - around, Math.round(y) - around];
          return Array.from(context.getImageData(left, top, side, side).data);
        }""",
        [x, y, around],
    )
    return [tuple(values[i : i + 4]) for i in range(0, len(values), 4)]


def is_near(pixel: tuple[int, ...], colour: tuple[int, int, int], tolerance: int = 40) -> bool:
    return pixel[3] > 200 and all(
        abs(found - wanted) <= tolerance for found, wanted in zip(pixel[:3], colour, strict=True)
    )


def test_boxes_of_the_camera_are_right_and_drawn_where_the_objects_are(
    service: Service, demo: DemoPage, bus: Image
) -> None:
    demo.open()
    demo.start("camera")
    demo.wait("demo.drawn && demo.drawn.boxes.length && demo.delay.count")
    delay = demo.evaluate("demo.delay")
    assert delay["origin"] == "camera", "Chromium knows when its camera has captured a frame"
    assert 0 < delay["p50"] <= delay["p95"]
    demo.wait("Number(document.querySelector('[data-stat=delay-50]').textContent) > 0")
    expected = [entry for entry in predicted(service, bus) if entry["score"] > 0.5]
    assert {"bus", "person"} <= {entry["label"] for entry in expected}

    def all_are_found() -> bool:
        result = demo.latest
        scale = WIDTH / result["width"]
        found = [[value * scale for value in row[:4]] + row[4:] for row in result["boxes"]]
        return all(
            any(row[5] == entry["class_id"] and overlap(row[:4], entry["box"]) > 0.7 for row in found)
            for entry in expected
        )

    # While a machine is slow, the page sends smaller frames, in which the model finds less.
    demo.wait(all_are_found)

    # Compute where the left edge of the bus must be drawn: the image is scaled to fit into the canvas, and
    # mirrored as for a front camera.
    box = next(entry["box"] for entry in expected if entry["label"] == "bus")

    def is_drawn() -> bool:
        (canvas_width, canvas_height) = demo.evaluate(
            "[document.getElementById('overlay').width, document.getElementById('overlay').height]"
        )
        fit = min(canvas_width / WIDTH, canvas_height / HEIGHT)
        left = (canvas_width - WIDTH * fit) / 2
        top = (canvas_height - HEIGHT * fit) / 2
        edge_x, middle_y = left + (WIDTH - box[2]) * fit, top + (box[1] + box[3]) / 2 * fit
        around = round(0.03 * canvas_width)
        if not any(is_near(pixel, BUS_COLOUR) for pixel in overlay_pixel(demo, edge_x, middle_y, around)):
            return False
        # In the lower left corner, where no box is, the overlay is transparent, and the video shows.
        return {pixel[3] for pixel in overlay_pixel(demo, 4, canvas_height - 6)} == {0}

    demo.wait(is_drawn)
    shown = cv2.imdecode(np.frombuffer(demo.page.locator("#stage").screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    assert float(np.asarray(shown).std()) > 30

    frame = demo.frames[-1]
    # On a machine that is slow for a moment, the page sends smaller frames.
    assert frame.width / frame.height == pytest.approx(4 / 3, rel=0.01)
    assert (demo.frames[0].width, demo.frames[0].height, frame.epoch) == (416, 312, 1)
    assert bytes(frame.payload[:3]) == b"\xff\xd8\xff"
    assert [frame.seq for frame in demo.frames] == list(range(1, len(demo.frames) + 1))
    assert demo.evaluate("demo.encoder") == "worker"
    assert demo.sockets == [f"{service.ws_url}/v1/stream"]
    assert demo.sent[0]["type"] == "hello"
    assert "token" not in demo.sent[0]


def test_frames_past_the_window_are_dropped_before_they_are_encoded(demo: DemoPage) -> None:
    demo.open("?source=camera&autostart=1")
    demo.wait_for_results(12)
    wins = [message["win"] for message in demo.received if "win" in message]
    assert 1 <= min(wins) <= max(wins) <= 4
    assert demo.evaluate("demo.flow.nextSeq - 1 - demo.flow.ack <= 4")
    assert demo.evaluate("demo.counts.sent") <= demo.evaluate("demo.counts.results + demo.counts.dropped + 4")
    assert not any(message["type"] == "error" for message in demo.received)


def moving(photo: Image) -> Iterator[Image]:
    """Yield 90 images (3 s) in which the photo, with a magenta mark above it, moves left and right."""
    small = cv2.resize(photo, (300, 400), interpolation=cv2.INTER_AREA)
    for index in range(90):
        x = 170 + round(150 * np.sin(2 * np.pi * index / 90))
        image = np.full((HEIGHT, WIDTH, 3), 110, np.uint8)
        image[60:460, x : x + 300] = small
        image[8:40, x + 110 : x + 190] = MAGENTA
        yield image


#: Returns for one moment the position of the mark on the canvas and that of the box drawn there, from 0 to 1.
_MARK_AND_BOXES = """() => {
  const canvas = document.getElementById('overlay');
  const { drawn } = window.demo;
  if (!drawn || drawn.view !== 'synced') return null;
  const height = Math.round(canvas.height * 0.09);
  const { data, width } = canvas.getContext('2d').getImageData(0, 0, canvas.width, height);
  let sum = 0, count = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] > 170 && data[i + 1] < 100 && data[i + 2] > 170) { sum += (i / 4) % width; count += 1; }
  }
  const { placement, frame, boxes, seq } = drawn;
  const buses = boxes.filter((row) => row[5] === 5);
  if (!count || buses.length !== 1) return null;
  const middle = (buses[0][0] + buses[0][2]) / 2;
  return { seq, mark: (sum / count - placement.left) / placement.width, box: middle / frame.width };
}"""


def test_in_synced_view_boxes_belong_to_the_frame_that_is_drawn(demo: DemoPage, tmp_path: Path) -> None:
    photo = cv2.imread(str(shared("data/images/bus.jpg")))
    assert photo is not None
    demo.open("?view=synced")
    demo.start_file(write_clip(tmp_path / "moving.mp4", moving(np.asarray(photo, np.uint8))))
    moments: dict[int, tuple[float, float]] = {}

    def enough() -> bool:
        moment = demo.evaluate(_MARK_AND_BOXES)
        if moment:
            moments[moment["seq"]] = (moment["mark"] * WIDTH, moment["box"] * WIDTH)
        marks = [mark for mark, _ in moments.values()]
        return len(moments) >= 15 and max(marks) - min(marks) > 150

    demo.wait(enough)
    marks, boxes = np.array(list(moments.values())).T
    offsets = boxes - marks
    # The mark has moved by more than 150 px. A box of another frame would be off by up to 10 px per frame.
    assert float(np.abs(offsets - np.median(offsets)).max()) < 25, sorted(moments.items())
    assert float(np.corrcoef(marks, boxes)[0, 1]) > 0.98


def test_settings_are_remembered_and_the_address_overrides_them(demo: DemoPage) -> None:
    demo.open("?source=sample&autostart=1")
    demo.wait("demo.connection.name === 'open'")
    demo.page.locator("#threshold").press("End")
    demo.page.check("[name=view][value=synced]", force=True)
    demo.open()
    demo.wait_text("#threshold-value", "95%")
    assert demo.page.locator("[name=view][value=synced]").is_checked()
    demo.page.click("#model-defaults")
    demo.wait_text("#threshold-value", "default")
    demo.open("?view=live&version=v2")
    demo.wait_text("#threshold-value", "default")
    assert demo.page.is_checked("[name=view][value=live]")
    assert demo.page.is_checked("[name=version][value=v2]")


def test_the_other_version_takes_over_while_the_camera_goes_on(service: Service, demo: DemoPage) -> None:
    demo.open("?source=camera&autostart=1")
    demo.wait_for_results()
    demo.page.check("[name=version][value=v2]", force=True)
    demo.wait("demo.connection.sessionsOpened === 2 && demo.latest")
    welcomes = [message for message in demo.received if message["type"] == "welcome"]
    assert [message["model"]["version"] for message in welcomes] == ["v1", "v2"]
    assert demo.sockets[1] == f"{service.ws_url}/v2/stream"
    assert any(message["type"] == "bye" for message in demo.sent)
    demo.wait_text("#model-hint", "yolov9t_ball · 1 class")
    # The choice shows each model's name, and for models that have been used the time that they take.
    demo.wait("document.querySelector('[value=v2] + span').textContent.endsWith(' ms')")
    assert demo.page.inner_text("[value=v2] + span b") == "yolov9t_ball"
    assert demo.evaluate("document.getElementById('video').srcObject.active")
    assert [frame.seq for frame in demo.frames] == list(range(1, len(demo.frames) + 1))


def test_the_sample_plays(demo: DemoPage) -> None:
    demo.open()
    demo.start("sample")
    demo.wait_for_results(3)
    # On a machine that is slow for a moment, the page sends smaller frames later.
    assert (demo.frames[0].width, demo.frames[0].height) == (416, 234)
    assert demo.evaluate("document.getElementById('video').loop")
    # For a file, unlike a camera, the default view shows each frame with its own boxes.
    demo.wait_value("demo.view", {"setting": "auto", "effective": "synced"})
    demo.wait("demo.drawn && demo.drawn.view === 'synced' && demo.delay.origin === 'page'")
    demo.page.locator("body").press("s")
    demo.wait("demo.view.setting === 'live' && demo.view.effective === 'live'")
    demo.page.click("#stop")
    demo.wait("demo.connection.name === 'idle'")
    demo.wait_visible(".start")


def test_without_any_setting_the_page_finds_the_codes_in_the_sample(browser: Browser) -> None:
    with Service({}, bundled=True) as service:
        demo = DemoPage(browser, service.http_url)
        demo.open("?source=sample&autostart=1")
        demo.wait("demo.latest && demo.latest.boxes.length >= 1")
        # This is the model's own threshold, not one that the page sets.
        demo.wait_text("#threshold-value", "35%")
        hello, welcome = (
            next(m for m in way if m["type"] == kind)
            for way, kind in ((demo.sent, "hello"), (demo.received, "welcome"))
        )
        assert "conf_threshold" not in hello["params"]
        assert welcome["params"]["conf_threshold"] == 0.35
        demo.assert_clean()
        demo.close()


def test_a_file_may_be_dropped_onto_the_stage_and_replaces_the_camera(demo: DemoPage) -> None:
    demo.open("?source=camera&autostart=1")
    demo.wait_for_results()
    epoch = demo.evaluate("demo.flow.epoch")
    demo.evaluate("""async () => {
      const blob = await (await fetch('data/sample.mp4')).blob();
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([blob], 'dropped.mp4', { type: 'video/mp4' }));
      const drop = new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true });
      document.getElementById('stage').dispatchEvent(drop);
    }""")
    # The camera's frames are 4:3, those of the clip 16:9; their sizes depend on how fast the machine is.
    demo.wait("demo.latest && demo.latest.width / demo.latest.height > 1.7")
    assert demo.evaluate("demo.flow.epoch") > epoch
    # Where the clip starts anew, a new epoch begins before there is a result of it.
    demo.wait("demo.latest.epoch === demo.flow.epoch")
    assert demo.evaluate("document.getElementById('video').srcObject") is None
    assert demo.evaluate("demo.connection.sessionsOpened") == 1


_HIDE = """(hidden) => {
  Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
  document.dispatchEvent(new Event('visibilitychange'));
}"""


@pytest.mark.parametrize("reads_tracks", [True, False])
def test_a_hidden_tab_goes_on(demo: DemoPage, reads_tracks: bool) -> None:
    if not reads_tracks:
        demo.page.add_init_script("delete window.MediaStreamTrackProcessor;")
    demo.open("?source=camera&autostart=1")
    demo.wait_for_results()
    demo.evaluate(_HIDE, True)  # from now on, the page ignores frames from the video element's callback
    demo.wait_for_results(3)
    assert not any(message["type"] == "pause" for message in demo.sent)
    demo.evaluate(_HIDE, False)
    demo.wait_for_results(2)


def test_a_hidden_tab_pauses_if_the_user_wants_it(demo: DemoPage) -> None:
    demo.open("?source=camera&autostart=1")
    demo.page.uncheck("#background", force=True)
    demo.wait_for_results()
    demo.evaluate(_HIDE, True)
    demo.wait_sent("pause")
    demo.wait("demo.flow.nextSeq - 1 === demo.flow.ack")
    sent = demo.evaluate("demo.flow.nextSeq")
    played = demo.evaluate("document.getElementById('video').currentTime")
    demo.wait(f"document.getElementById('video').currentTime > {played} + 0.3")
    assert demo.evaluate("demo.flow.nextSeq") == sent
    demo.evaluate(_HIDE, False)
    demo.wait_sent("resume")
    demo.wait_for_results(2)
    assert demo.evaluate("demo.connection.sessionsOpened") == 1


def test_space_pauses_the_image_and_the_stream(demo: DemoPage) -> None:
    demo.open("?source=sample&autostart=1")
    demo.wait_for_results()
    demo.page.locator("body").press("Space")
    demo.wait_sent("pause")
    demo.wait_visible("#paused-label")
    demo.wait_value("demo.results", "paused")
    demo.wait_text("#connection", "Paused")
    demo.wait_text("#stale-note", "Paused")
    assert demo.evaluate("document.getElementById('video').paused")
    demo.page.get_by_role("button", name="Resume").click()
    demo.wait_sent("resume")
    demo.wait_for_results(2)


@pytest.mark.parametrize("view", ["live", "synced"])
def test_an_image_with_its_boxes_can_be_saved_and_is_not_mirrored(
    demo: DemoPage, bus: Image, tmp_path: Path, view: str
) -> None:
    demo.open(f"?source=camera&autostart=1&view={view}")
    demo.wait("demo.drawn && demo.drawn.boxes.some((row) => row[5] === 5)")
    assert demo.page.get_attribute("#mirror", "aria-pressed") == "true"
    with demo.page.expect_download() as waiting:
        demo.page.click("#snapshot")
    path = tmp_path / "saved.png"
    waiting.value.save_as(path)
    assert waiting.value.suggested_filename.startswith("detections-")
    saved = np.asarray(cv2.imread(str(path)))
    assert saved.shape == (HEIGHT, WIDTH, 3)
    assert (np.abs(saved.astype(int) - BUS_COLOUR[::-1]).max(axis=2) < 8).sum() > 200
    differences = [float(np.abs(saved.astype(int) - shown).mean()) for shown in (bus, bus[:, ::-1])]
    assert differences[0] < 0.5 * differences[1]


@pytest.mark.parametrize("view", ["live", "synced"])
def test_an_older_browser_does_the_same_on_its_main_thread(demo: DemoPage, view: str) -> None:
    demo.page.add_init_script("""
      delete window.OffscreenCanvas;
      delete HTMLVideoElement.prototype.requestVideoFrameCallback;
    """)
    demo.open(f"?source=camera&autostart=1&view={view}")
    demo.wait("demo.drawn && demo.drawn.boxes.some((row) => row[5] === 5)")
    assert demo.evaluate("demo.encoder") == "canvas"
    demo.wait_for_results(2)
