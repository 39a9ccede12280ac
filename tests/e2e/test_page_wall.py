"""Several streams on one page have results of their own, share settings and the grid, and can be enlarged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from tests.conftest import shared
from tests.e2e.browser import DemoPage, chromium, letterboxed, write_camera, write_clip
from tests.helpers.service import Service

pytestmark = pytest.mark.browser


@pytest.fixture
def demo(service: Service, tmp_path: Path) -> Iterator[DemoPage]:
    photo = cv2.imread(str(shared("data/images/bus.jpg")))
    assert photo is not None
    image = letterboxed(np.asarray(photo, np.uint8), 640, 480)
    camera = write_camera(tmp_path / "bus.mjpeg", [image] * 3)
    with sync_playwright() as playwright, chromium(playwright, camera=camera) as browser:
        page = DemoPage(browser, service.http_url)
        yield page
        page.assert_clean()
        page.close()


def test_a_camera_files_and_the_sample_run_side_by_side(demo: DemoPage, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "yard.mp4", [np.full((120, 160, 3), n, np.uint8) for n in range(30)])
    demo.open()
    demo.page.click("#more-streams summary")
    demo.page.click("[data-add=camera]")
    demo.page.set_input_files("#add-files", [clip, clip])
    demo.start("sample")
    demo.wait_for_results(2)
    demo.wait("demo.tiles.length === 3 && demo.tiles.every((count) => count >= 2)")
    names = demo.page.locator(".tile .stream-name").all_inner_texts()
    assert names[1:] == ["yard.mp4", "yard.mp4"]
    assert demo.page.inner_text("#player-name") == "Sample"
    streams = [message["streams"][0]["name"] for message in demo.sent if message["type"] == "hello"]
    assert sorted(streams) == ["demo-page", "demo-page-2", "demo-page-3", "demo-page-4"]

    # The change of one setting reaches all streams.
    demo.page.check("#track", force=True)
    demo.wait(lambda: sum(message["type"] == "configured" for message in demo.received) >= 4)

    demo.page.set_input_files("#add-files", [clip] * 6)
    demo.wait_text("#add-hint", "At most 9 streams")
    # A stream says goodbye if its connection is open, so let all of them have results first.
    demo.wait("demo.tiles.length === 8 && demo.tiles.every((count) => count >= 1)")
    for _ in range(8):
        demo.page.locator(".tile-close").first.click()
    demo.wait("demo.tiles.length === 0")
    demo.wait(lambda: sum(message["type"] == "bye" for message in demo.sent) >= 8)
    demo.wait_for_results(2)


#: Lets the browser open a camera only when the test calls `window.allow`.
_SLOW_CAMERA = """
const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = (...wanted) =>
  new Promise((resolve) => { window.allow = resolve; }).then(() => open(...wanted));
"""


def test_a_tile_that_is_closed_while_its_camera_opens_stays_closed(demo: DemoPage) -> None:
    demo.page.add_init_script(_SLOW_CAMERA)
    demo.open()
    demo.page.click("#more-streams summary")
    demo.page.click("[data-add=camera]")
    demo.wait("window.allow !== undefined && demo.tiles.length === 1")
    demo.page.locator(".tile-close").click()
    demo.wait("demo.tiles.length === 0")
    demo.evaluate("window.allow()")
    # The next stream is shown in the same tile.
    demo.page.click("[data-add=sample]")
    demo.wait("demo.tiles.length === 1 && demo.tiles[0] >= 3")
    assert demo.page.locator(".tile .stream-name").all_inner_texts() == ["Sample"]
    assert [message["type"] for message in demo.sent].count("hello") == 1


#: Whether the overlay of the tile shows anything. In the view with the lowest latency it shows only boxes.
_HAS_BOXES = """(() => {
  const canvas = document.querySelector('.tile canvas');
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  return data.some((value, index) => index % 4 === 3 && value > 0);
})()"""


def test_a_tile_says_how_it_does_can_be_enlarged_and_shows_no_boxes_if_asked(demo: DemoPage) -> None:
    demo.open("?view=live")
    demo.page.click("#more-streams summary")
    demo.page.click("[data-add=camera]")
    demo.wait(
        r"/^\d+\.\d fps · [\d.]+ ms · .*bus: 1/.test(document.querySelector('.tile-numbers').textContent)"
    )
    demo.wait(_HAS_BOXES)
    boxes = demo.page.get_by_role("button", name="Show boxes of stream 2")
    boxes.click()
    demo.wait(f"!{_HAS_BOXES}")
    seen = demo.evaluate("demo.tiles[0]")
    demo.wait(f"demo.tiles[0] >= {seen + 2}")
    assert not demo.evaluate(_HAS_BOXES)
    boxes.click()
    demo.wait(_HAS_BOXES)

    width = "document.querySelector('.tile').getBoundingClientRect().width"
    before = demo.evaluate(width)
    enlarge = demo.page.get_by_role("button", name="Enlarge stream 2")
    enlarge.focus()
    demo.page.keyboard.press("Enter")
    demo.wait(f"{width} > {1.9 * before}")
    assert enlarge.get_attribute("aria-pressed") == "true"
    demo.page.keyboard.press("Escape")
    demo.wait_value(width, before)
    # A stream that is closed while it is enlarged leaves the player alone in the grid.
    enlarge.click()
    demo.page.get_by_role("button", name="Close stream 2").click()
    demo.wait("!document.getElementById('streams').hasAttribute('data-enlarged')")
    demo.wait_hidden("#enlarge")
