"""The demo page sends video over WebRTC, draws results on their frames, and falls back to WebSocket."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Playwright

from tests.conftest import shared
from tests.e2e.browser import DemoPage, Image, chromium
from tests.e2e.test_page import overlap, predicted
from tests.e2e.webrtc_tools import program
from tests.helpers.service import Service

pytestmark = pytest.mark.browser

#: JavaScript that reads the canvas and the page's record of what it drew in one call, so that both match.
DRAWN = """
() => demo.drawn && demo.drawn.boxes.length
  ? {...demo.drawn, labels: undefined, png: document.getElementById('overlay').toDataURL('image/png')}
  : null
"""


@pytest.fixture(scope="module")
def people() -> Path:
    """Return the path of a video in which people walk by one after the other."""
    return shared("data/video/one-by-one-person-detection.mp4")


@pytest.fixture(scope="module")
def camera(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Convert 10 s of the video to a Motion JPEG file for Chromium's fake camera: 640x360, 15 fps."""
    ffmpeg = program("ffmpeg", "ffmpeg")
    path = tmp_path_factory.mktemp("camera") / "people.mjpeg"
    command = [ffmpeg, "-loglevel", "error", "-ss", "5", "-t", "10", "-i", str(people), "-r", "15"]
    subprocess.run([*command, "-vf", "scale=640:360", "-c:v", "mjpeg", "-q:v", "3", str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def browser(playwright: Playwright, camera: Path) -> Iterator[Browser]:
    """Run a browser whose camera shows the people."""
    with chromium(playwright, camera=camera) as running:
        yield running


def test_the_camera_goes_as_video_and_the_line_is_shown(demo: DemoPage, tmp_path: Path) -> None:
    demo.open("?transport=webrtc")
    demo.start("camera")
    demo.wait("demo.connection.name === 'open'")
    demo.wait_for_results(30)
    demo.wait("demo.drawn && demo.drawn.boxes.length")
    demo.wait("demo.transport.quality?.kbps && demo.transport.quality.rttMs !== null")
    assert demo.sockets == []
    transport = demo.evaluate("demo.transport")
    assert (transport["selected"], transport["active"]) == ("webrtc", "webrtc")
    assert transport["fallbackReason"] == ""
    demo.wait("demo.transport.quality?.codec === 'VP8' && demo.transport.quality.path === 'direct'")
    demo.wait_text("#connection-text", "Live · yolox_nano · WebRTC")
    demo.wait("document.querySelector('[data-stat=network]').textContent.includes('direct')")
    demo.wait("document.querySelector('[data-stat=volume]').textContent.includes('kbit/s')")
    # The page knows the round trip only if it has matched encoded frames to camera frames.
    demo.wait("Number(document.querySelector('[data-stat=round-trip-50]').textContent) > 0")
    demo.wait("Number(document.querySelector('[data-stat=delay-50]').textContent) > 0")
    assert demo.evaluate("demo.counts.sent") > 20
    demo.page.screenshot(path=tmp_path / "webrtc.png")


def test_in_synced_view_each_frame_has_its_own_boxes(service: Service, demo: DemoPage) -> None:
    demo.open("?transport=webrtc&view=synced")
    demo.start("camera")
    demo.wait_for_results(20)
    checked: set[int] = set()

    def enough() -> bool:
        drawn = demo.evaluate(DRAWN)
        if drawn is not None and has_its_own_boxes(service, drawn):
            checked.add(drawn["seq"])
        return len(checked) >= 4

    # The view moves on only while results are matched to their frames.
    demo.wait(enough)


def has_its_own_boxes(service: Service, drawn: dict[str, Any]) -> bool:
    """Assert that each clearly visible person on the canvas has a box; return whether there was one."""
    encoded = base64.b64decode(drawn["png"].partition(",")[2])
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    there: Image = np.asarray(image, np.uint8)
    clear = [d for d in predicted(service, there) if d["label"] == "person" and d["score"] > 0.6]
    placement, frame = drawn["placement"], drawn["frame"]
    scale = placement["width"] / frame["width"]
    for detection in clear:
        boxes = []
        for row in drawn["boxes"]:
            left, right = row[0] * scale, row[2] * scale
            if placement["mirror"]:
                left, right = placement["width"] - right, placement["width"] - left
            top = placement["top"]
            boxes.append(
                [
                    placement["left"] + left,
                    top + row[1] * scale,
                    placement["left"] + right,
                    top + row[3] * scale,
                ]
            )
        assert max(overlap(box, detection["box"]) for box in boxes) > 0.7
    return bool(clear)


def test_a_file_goes_as_video_and_another_source_follows(demo: DemoPage, people: Path) -> None:
    demo.open("?transport=webrtc")
    demo.start_file(people)
    demo.wait_for_results(10)
    assert demo.latest["width"] / demo.latest["height"] == pytest.approx(768 / 432, rel=0.02)
    opened = demo.evaluate("demo.connection.sessionsOpened")
    demo.page.click(".source-buttons [data-source=camera]")
    demo.wait("document.getElementById('video').srcObject !== null")
    demo.wait_for_results(10)
    assert demo.evaluate("demo.connection.sessionsOpened") == opened


def test_the_way_is_changed_while_it_runs(demo: DemoPage) -> None:
    demo.open()
    demo.start("camera")
    demo.wait_for_results(3)
    assert demo.evaluate("demo.transport.active") == "websocket"
    demo.page.click("#transport label:has([value=webrtc])")
    demo.wait("demo.transport.active === 'webrtc' && demo.connection.name === 'open'")
    demo.wait_for_results(5)
    assert "rtp" in demo.latest
    demo.page.click("#transport label:has([value=websocket])")
    demo.wait("demo.transport.active === 'websocket' && demo.connection.name === 'open'")
    demo.wait_for_results(3)
    assert "ts" in demo.latest


def test_parameters_and_pauses_are_told_over_the_control_channel(demo: DemoPage) -> None:
    demo.open("?transport=webrtc")
    demo.start("camera")
    demo.wait_for_results(5)
    demo.page.locator("#threshold").fill("0.9")
    demo.wait("demo.latest.cfg > 0")
    cfg = demo.latest["cfg"]
    demo.page.click("#advanced summary")
    demo.page.check("#agnostic-nms", force=True)
    demo.wait(f"demo.latest.cfg > {cfg}")
    demo.page.click("#pause")

    def none_comes() -> bool:
        before = demo.evaluate("demo.counts.results")
        demo.page.wait_for_timeout(600)
        return bool(demo.evaluate("demo.counts.results") == before)

    demo.wait(none_comes)  # results of frames in flight still come
    demo.page.click("#pause")
    demo.wait_for_results(5)


def test_where_webrtc_does_not_work_the_page_goes_on_over_websocket_and_says_why(
    browser: Browser, tmp_path: Path
) -> None:
    settings = {"STREAM_MIN_FPS": "0", "WEBRTC_SESSIONS_MAX": "0"}
    with Service(settings) as service:
        demo = DemoPage(browser, service.http_url)
        demo.open("?transport=webrtc")
        demo.start("camera")
        demo.wait("demo.transport.active === 'websocket' && demo.connection.name === 'open'")
        demo.wait_for_results(3)
        demo.wait_text(
            "#transport-hint",
            "Using WebSocket instead of WebRTC: WebRTC is switched off here (WEBRTC_SESSIONS_MAX=0).",
        )
        assert demo.evaluate("demo.transport.selected") == "webrtc"
        demo.page.screenshot(path=tmp_path / "fallback.png")
        demo.assert_clean(but=("503",))
        demo.close()


def test_where_udp_does_not_get_through_the_page_goes_on_over_websocket(
    browser: Browser,
) -> None:
    # No host has this address (RFC 5737), so UDP packets get no answer, as behind a firewall that blocks UDP.
    settings = {"STREAM_MIN_FPS": "0", "PUBLIC_IP": "203.0.113.7"}
    with Service(settings) as service:
        demo = DemoPage(browser, service.http_url)
        demo.open("?transport=webrtc")
        demo.start("camera")
        demo.wait("demo.transport.active === 'websocket' && demo.connection.name === 'open'")
        demo.wait_for_results(3)
        demo.wait_text(
            "#transport-hint", "Using WebSocket instead of WebRTC: UDP packets do not reach the server."
        )
        # The page asks the server to delete the session.
        demo.wait(lambda: service.metric("object_detection_webrtc_sessions") == 0)
        demo.assert_clean()
        demo.close()
