"""Tests the demo page's errors (camera, permission, insecure address, unplayable file) and phone layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Playwright

from tests.e2e.browser import DemoPage, chromium, write_camera
from tests.helpers.service import Service

pytestmark = pytest.mark.browser

PHONE = {
    "viewport": {"width": 360, "height": 740},
    "device_scale_factor": 3,
    "is_mobile": True,
    "has_touch": True,
}


@pytest.fixture(scope="module")
def blind(playwright: Playwright) -> Iterator[Browser]:
    """Run a browser without a camera in which the host name `demo.test` resolves to this machine."""
    with chromium(playwright, "--host-resolver-rules=MAP demo.test 127.0.0.1") as running:
        yield running


def error_text(demo: DemoPage) -> str:
    """Wait until the page shows an error; return its text."""
    demo.wait("demo.error")
    demo.wait_visible("#error")
    return demo.page.inner_text("#error")


def test_without_a_camera_the_page_offers_file_and_sample(service: Service, blind: Browser) -> None:
    demo = DemoPage(blind, service.http_url, permissions=["camera"])
    demo.open()
    demo.start("camera")
    assert "No camera was found" in error_text(demo)
    assert demo.evaluate("demo.error") == "no-camera"
    assert demo.sockets == []
    demo.page.get_by_role("button", name="Play the sample").click()
    demo.wait_for_results()
    demo.wait_hidden("#error")
    demo.assert_clean()
    demo.close()


@pytest.fixture
def named() -> Iterator[Service]:
    """Run a service that also accepts requests for the host name `demo.test`."""
    with Service({"ALLOWED_HOSTS": "demo.test"}) as running:
        yield running


def test_a_denied_permission_is_explained(service: Service, playwright: Playwright, tmp_path: Path) -> None:
    camera = write_camera(tmp_path / "grey.mjpeg", [np.full((120, 160, 3), 90, np.uint8)])
    with chromium(playwright, "--deny-permission-prompts", camera=camera, allow=False) as browser:
        demo = DemoPage(browser, service.http_url)
        demo.open()
        demo.start("camera")
        text = error_text(demo)
        assert demo.evaluate("demo.error") == "permission-denied"
        assert "blocked" in text
        assert "Allow" in text
        demo.page.get_by_role("button", name="Try again").wait_for()
        # The user now allows the camera, as the text explains.
        demo.context.grant_permissions(["camera"])
        demo.page.get_by_role("button", name="Try again").click()
        demo.wait_for_results()
        demo.assert_clean()
        demo.close()


def test_on_an_insecure_address_only_the_camera_is_missing(named: Service, blind: Browser) -> None:
    demo = DemoPage(blind, f"http://demo.test:{named.port}")
    demo.open()
    assert demo.evaluate("window.isSecureContext") is False
    demo.start("camera")
    assert "https" in error_text(demo)
    assert demo.evaluate("demo.error") == "insecure-origin"
    demo.page.get_by_role("button", name="Play the sample").click()
    demo.wait_for_results()
    demo.assert_clean()
    demo.close()


def test_a_file_that_does_not_play_is_named(service: Service, blind: Browser, tmp_path: Path) -> None:
    broken = tmp_path / "holiday.mp4"
    broken.write_bytes(b"not a video at all" * 100)
    demo = DemoPage(blind, service.http_url)
    demo.open()
    demo.start_file(broken)
    assert "holiday.mp4" in error_text(demo)
    assert demo.evaluate("demo.error") == "unplayable"
    demo.assert_clean()
    demo.close()


def test_a_disconnected_camera_ends_the_stream_with_an_error(
    service: Service, playwright: Playwright, tmp_path: Path
) -> None:
    camera = write_camera(tmp_path / "grey.mjpeg", [np.full((120, 160, 3), 90, np.uint8)])
    with chromium(playwright, camera=camera) as browser:
        demo = DemoPage(browser, service.http_url)
        demo.open("?source=camera&autostart=1")
        demo.wait_for_results()
        demo.evaluate(
            "document.getElementById('video').srcObject.getVideoTracks()[0].dispatchEvent(new Event('ended'))"
        )
        assert "was disconnected" in error_text(demo)
        demo.wait("demo.connection.name === 'idle'")
        demo.assert_clean()
        demo.close()


_LAYOUT = """() => {
  const outside = [];
  for (const element of document.querySelectorAll('button, input, select, summary, a')) {
    const box = element.getBoundingClientRect();
    if (!box.width || element.closest('.visually-hidden, .spinner')) continue;
    if (box.left < 0 || box.right > innerWidth + 0.5) outside.push(element.id || element.textContent);
  }
  const small = [...document.querySelectorAll('.tool, .button, .card-button')]
    .filter((button) => button.offsetParent && Math.min(button.offsetWidth, button.offsetHeight) < 40)
    .map((button) => button.id || button.textContent);
  return { outside, small, scrolls: document.documentElement.scrollWidth > innerWidth };
}"""


@pytest.mark.parametrize("size", [(360, 740), (740, 360)], ids=["upright", "lying"])
def test_on_a_phone_nothing_sticks_out_and_everything_is_in_reach(
    service: Service, blind: Browser, size: tuple[int, int]
) -> None:
    options = PHONE | {"viewport": {"width": size[0], "height": size[1]}}
    demo = DemoPage(blind, service.http_url, **options)
    demo.open()
    fine = {"outside": [], "small": [], "scrolls": False}
    demo.wait_value(_LAYOUT, fine)
    demo.page.tap(".start [data-source=sample]")
    demo.wait_for_results(2)
    demo.wait_value(_LAYOUT, fine)
    # The page resizes the overlay after the layout has changed.
    ratio = "document.getElementById('overlay').width / document.getElementById('stage').clientWidth"
    demo.wait(f"Math.abs({ratio} - 3) < 0.02")
    stage = demo.page.locator("#stage").bounding_box()
    assert stage is not None
    assert stage["y"] + stage["height"] <= size[1]
    demo.page.locator("#track").scroll_into_view_if_needed()
    demo.page.locator(".switch:has(#track)").tap()
    demo.wait_sent("configure")
    demo.page.locator("#stop").scroll_into_view_if_needed()
    demo.page.tap("#stop")
    demo.wait("demo.connection.name === 'idle'")
    demo.assert_clean()
    demo.close()
