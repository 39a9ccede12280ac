"""Fixtures for tests of the demo page: a browser whose camera shows a photo, and a tab with the page."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

from tests.conftest import shared
from tests.e2e.browser import DemoPage, Image, chromium, letterboxed, write_camera
from tests.helpers.service import Service

#: Width and height of the photo in pixels.
WIDTH, HEIGHT = 640, 480


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """Run Playwright, of which a process can have one at a time."""
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def bus() -> Image:
    """Return a photo of a street with a bus and people."""
    photo = cv2.imread(str(shared("data/images/bus.jpg")))
    assert photo is not None
    return letterboxed(np.asarray(photo, np.uint8), WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def browser(
    playwright: Playwright, bus: Image, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    """Run a browser whose camera shows the photo of the bus."""
    camera = write_camera(tmp_path_factory.mktemp("camera") / "bus.mjpeg", [bus] * 3)
    with chromium(playwright, camera=camera) as running:
        yield running


@pytest.fixture
def demo(service: Service, browser: Browser) -> Iterator[DemoPage]:
    """Yield a new tab of the module's browser, and assert after the test that the page reported no errors."""
    page = DemoPage(browser, service.http_url)
    yield page
    page.assert_clean()
    page.close()
