"""Several streams on one page have results of their own, and share the settings, the limit and the grid."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from tests.e2e.browser import DemoPage, chromium, write_camera, write_clip
from tests.helpers.service import Service

pytestmark = pytest.mark.browser


@pytest.fixture
def demo(service: Service, tmp_path: Path) -> Iterator[DemoPage]:
    camera = write_camera(tmp_path / "grey.mjpeg", [np.full((240, 320, 3), 90, np.uint8)] * 3)
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
    names = demo.page.locator(".tile-name").all_inner_texts()
    assert names[1:] == ["yard.mp4", "yard.mp4"]
    streams = [message["streams"][0]["name"] for message in demo.sent if message["type"] == "hello"]
    assert sorted(streams) == ["demo-page", "demo-page-2", "demo-page-3", "demo-page-4"]

    # The change of one setting reaches all streams.
    demo.page.check("#track", force=True)
    demo.wait(lambda: sum(message["type"] == "configured" for message in demo.received) == 4)

    demo.page.set_input_files("#add-files", [clip] * 6)
    demo.wait("demo.tiles.length === 8")
    assert "At most 9 streams" in demo.page.inner_text("#add-hint")
    for _ in range(8):
        demo.page.locator(".tile-close").first.click()
    assert demo.evaluate("demo.tiles.length") == 0
    demo.wait(lambda: sum(message["type"] == "bye" for message in demo.sent) >= 8)
    demo.wait_for_results(2)
