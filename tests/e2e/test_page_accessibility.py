"""Tests the accessibility of the demo page: axe in both themes, clipped controls, use by keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.e2e.browser import DemoPage, chromium
from tests.e2e.webrtc_tools import npm_package
from tests.helpers.service import Service

pytestmark = pytest.mark.browser

#: Widths and heights of the window in CSS pixels; the last two are 1280x800 at 200 % and 1280x1024 at 400 %.
SIZES = [(390, 844), (768, 1024), (1280, 800), (2560, 1440), (640, 400), (320, 256)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, chromium(playwright) as running:
        yield running


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the source code of axe-core."""
    folder = npm_package("axe-core@4.10", tmp_path_factory.mktemp("axe"))
    return (folder / "axe.min.js").read_text()


@pytest.fixture(scope="module")
def bundled() -> Iterator[Service]:
    """Run the service with its bundled models, which find something in the sample."""
    # STREAM_MIN_FPS=0 turns admission off, because it depends on the speed of the machine.
    with Service({"STREAM_MIN_FPS": "0"}, bundled=True) as running:
        yield running


def findings(demo: DemoPage, state: str) -> list[str]:
    """Return the findings of axe in both themes; each names its theme, state, rule and element."""
    found: list[str] = []
    for theme in ("dark", "light"):
        demo.page.emulate_media(color_scheme=theme)
        found += demo.evaluate(
            """async (state) => {
              const { violations } = await axe.run(document, { resultTypes: ['violations'] });
              const reasons = ({ any, all }) => [...any, ...all].map(({ message }) => message).join('; ');
              return violations.flatMap(({ id, nodes }) =>
                nodes.map((node) => `${state}: ${id}: ${node.html.slice(0, 160)} ${reasons(node)}`));
            }""",
            f"{theme}, {state}",
        )
    return found


def test_axe_finds_nothing(bundled: Service, browser: Browser, axe: str, tmp_path: Path) -> None:
    # Without reduced motion, axe would measure colours in the middle of a transition.
    demo = DemoPage(browser, bundled.http_url, reduced_motion="reduce")
    demo.open()
    demo.evaluate(f"() => {{ {axe} }}")
    demo.wait("!document.querySelector('.start [data-source=sample]').hidden")
    found = findings(demo, "start")
    demo.page.keyboard.press("?")
    found += findings(demo, "shortcuts")
    demo.page.keyboard.press("Escape")
    demo.start("sample")
    demo.wait("demo.drawn && demo.drawn.boxes.length")
    for panel in ("counts", "all-classes", "access", "more-streams", "advanced"):
        demo.evaluate("(id) => { document.getElementById(id).open = true; }", panel)
    demo.page.click("#detected-classes .chip >> nth=0")
    for count in (1, 2):
        demo.page.click("[data-add=sample]")
        demo.wait(f"demo.tiles.length === {count} && demo.tiles.every((results) => results > 0)")
    demo.page.click("#pause")
    found += findings(demo, "paused, with other streams")
    photos = [tmp_path / "first.jpg", tmp_path / "second.jpg"]
    for photo in photos:
        cv2.imwrite(str(photo), np.full((120, 160, 3), 90, np.uint8))
    demo.page.set_input_files("#photo-files", photos)
    demo.wait("document.getElementById('photo-text').textContent.includes('detections')")
    found += findings(demo, "photos")
    assert found == []
    demo.assert_clean()
    demo.close()


#: Returns the controls that extend beyond the page's left or right edge, after a note if it scrolls sideways.
_CLIPPED = """() => {
  const width = document.documentElement.clientWidth;
  const wide = document.documentElement.scrollWidth > width ? ['the page scrolls sideways'] : [];
  const controls = [...document.querySelectorAll('button, input, select, a, summary')];
  return wide.concat(controls.filter((control) => {
    const { left, right, width: size } = (control.labels?.[0] ?? control).getBoundingClientRect();
    return size > 1 && (left < -0.5 || right > width + 0.5);
  }).map((control) => control.outerHTML.slice(0, 120)));
}"""


_OUTSIDE_THE_STAGE = """() => {
  const stage = document.getElementById('stage').getBoundingClientRect();
  return [...document.querySelectorAll('.start button')].filter((button) => {
    const { left, right } = button.getBoundingClientRect();
    return left < stage.left || right > stage.right;
  }).map((button) => button.outerHTML.slice(0, 120));
}"""
#: Returns the visible share of the stage's height, its size, and the element on top at the slider's centre.
_VIEW = """() => {
  const { top, bottom, width, height } = document.getElementById('stage').getBoundingClientRect();
  const slider = document.getElementById('threshold').getBoundingClientRect();
  const [x, y] = [slider.left + slider.width / 2, slider.top + slider.height / 2];
  const reached = document.elementFromPoint(x, y)?.id;
  return { share: (Math.min(bottom, innerHeight) - Math.max(top, 0)) / height, width, height, reached };
}"""


def test_no_control_is_clipped_and_the_frame_stays_in_view(bundled: Service, browser: Browser) -> None:
    demo = DemoPage(browser, bundled.http_url)
    demo.open()
    demo.wait("!document.querySelector('.start [data-source=sample]').hidden")
    for width, height in SIZES:
        demo.page.set_viewport_size({"width": width, "height": height})
        demo.wait(f"innerWidth === {width} && innerHeight === {height}")
        demo.wait_value(_CLIPPED, [])
        demo.wait_value(_OUTSIDE_THE_STAGE, [])
    demo.start("sample")
    demo.wait("demo.connection.name === 'open'")
    for width, height in SIZES:
        demo.page.set_viewport_size({"width": width, "height": height})
        demo.wait(f"innerWidth === {width} && innerHeight === {height}")
        demo.evaluate("scrollTo(0, 0)")
        demo.wait_value(_CLIPPED, [])
        # When the user scrolls to a setting, most of the frame must remain visible.
        demo.wait(partial(shows_frame_and_slider, demo, width, height))
    demo.page.click("#more-streams summary")
    for _ in range(2):
        demo.page.click("[data-add=sample]")
    for width, height in SIZES:
        demo.page.set_viewport_size({"width": width, "height": height})
        demo.wait(f"innerWidth === {width} && innerHeight === {height}")
        demo.wait_value(_CLIPPED, [])
    demo.assert_clean()
    demo.close()


def shows_frame_and_slider(demo: DemoPage, width: int, height: int) -> bool:
    """Scroll to the slider; return whether most of the frame is visible, and large in a large window."""
    demo.page.locator("#threshold").scroll_into_view_if_needed()
    view: dict[str, Any] = demo.evaluate(_VIEW)
    ratio = view["width"] / view["height"]
    is_large = ratio == pytest.approx(16 / 9, abs=0.03) and view["width"] > 0.8 * width
    # At 400 % the window has no room for a frame beside the settings.
    has_frame = view["share"] > 0.9 or height < 300
    return bool(view["reached"] == "threshold" and has_frame and (is_large or width != 2560))


#: Returns the name of the focused control (its panel, id, group or text), and whether it shows a focus ring.
_FOCUSED = """() => {
  const active = document.activeElement;
  const text = active.textContent.trim().slice(0, 40);
  const name = active.closest('#access')?.id || active.id || active.name || text;
  const outlined = [active, active.nextElementSibling].some((part) =>
    part && getComputedStyle(part).outlineStyle !== 'none');
  return { name, outlined };
}"""


def test_the_page_can_be_used_with_the_keyboard_alone(bundled: Service, browser: Browser) -> None:
    demo = DemoPage(browser, bundled.http_url)
    demo.open()
    demo.wait("!document.querySelector('.start [data-source=sample]').hidden")
    press = demo.page.keyboard.press
    demo.page.focus(".start [data-source=sample]")
    press("Enter")
    demo.wait("demo.connection.name === 'open'")
    demo.wait("document.activeElement.id === 'pause'")
    reached: list[str] = []
    while (name := demo.evaluate(_FOCUSED)["name"]) != "access":
        assert demo.evaluate(_FOCUSED)["outlined"], f"{name} does not show the focus"
        reached.append(name)
        assert len(reached) < 80, f"the focus does not get to the end: {reached[-10:]}"
        press("Tab")
    assert {"pause", "stop", "snapshot", "fullscreen", "threshold", "track", "background"} <= set(reached)

    # The page follows the system's theme until the button sets it to light; the page stores this choice.
    background = "getComputedStyle(document.body).backgroundColor"
    light = demo.evaluate(background)
    demo.page.emulate_media(color_scheme="dark")
    dark = demo.evaluate(background)
    assert light != dark
    demo.page.focus("#theme-button")
    press("Enter")
    demo.wait_value(background, light)
    demo.wait_value("JSON.parse(localStorage.getItem('demo.settings')).theme", "light")

    # On a switch the space bar toggles it; elsewhere on the page it is a shortcut.
    demo.page.focus("#track")
    press("Space")
    demo.wait_value("document.getElementById('track').checked", True)
    assert not demo.page.is_visible("#paused-label")
    demo.evaluate("document.activeElement.blur()")
    press("Space")
    demo.wait("document.getElementById('announcer').textContent === 'Paused'")
    press("?")
    demo.page.uncheck("#shortcuts-enabled", force=True)
    press("Escape")
    demo.evaluate("document.activeElement.blur()")
    press("x")
    assert demo.page.is_visible("#stop")
    demo.assert_clean()
    demo.close()
