"""The demo page for everybody: findings of axe in both themes, clipped controls, use by keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator
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

#: Width and height in CSS pixels; the last two are 1280x800 at 200 % and 1280x1024 at 400 %.
SIZES = [(390, 844), (768, 1024), (1280, 800), (2560, 1440), (640, 400), (320, 256)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, chromium(playwright) as running:
        yield running


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core."""
    folder = npm_package("axe-core@4.10", tmp_path_factory.mktemp("axe"))
    return (folder / "axe.min.js").read_text()


@pytest.fixture(scope="module")
def bundled() -> Iterator[Service]:
    """The service with its own models, which find something in the sample."""
    # Admission depends on the machine.
    with Service({"STREAM_MIN_FPS": "0"}, bundled=True) as running:
        yield running


def findings(demo: DemoPage, state: str) -> list[str]:
    """Return what axe finds in both themes, as theme, state, rule and element."""
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
    # A transition of colours would be measured half way.
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
    for panel in ("counts", "all-classes", "access", "more-streams"):
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


#: Controls that are outside the page or under another control, with the scrolled page as it is.
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
#: How much of the stage is in the window, its size, and what is in front in the middle of the slider.
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
        assert demo.evaluate(_CLIPPED) == [], (width, height)
        assert demo.evaluate(_OUTSIDE_THE_STAGE) == [], (width, height)
    demo.start("sample")
    demo.wait("demo.connection.name === 'open'")
    for width, height in SIZES:
        demo.page.set_viewport_size({"width": width, "height": height})
        demo.evaluate("scrollTo(0, 0)")
        assert demo.evaluate(_CLIPPED) == [], (width, height)
        # Whichever setting is scrolled to, most of the frame is still there.
        demo.page.locator("#threshold").scroll_into_view_if_needed()
        view: dict[str, Any] = demo.evaluate(_VIEW)
        assert view["reached"] == "threshold", (width, height)
        # At 400 % there is no room for a frame beside settings.
        assert view["share"] > 0.9 or height < 300, (width, height)
        if width == 2560:
            assert view["width"] / view["height"] == pytest.approx(16 / 9, abs=0.03)
            assert view["width"] > 0.8 * width
    demo.assert_clean()
    demo.close()


#: The focused control by its panel, id, group or text, and whether it or its visible part has a ring.
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

    # The theme of the system, then always light; the choice is remembered.
    background = "getComputedStyle(document.body).backgroundColor"
    light = demo.evaluate(background)
    demo.page.emulate_media(color_scheme="dark")
    dark = demo.evaluate(background)
    assert light != dark
    demo.page.focus("#theme-button")
    press("Enter")
    assert demo.evaluate(background) == light
    stored = demo.evaluate("JSON.parse(localStorage.getItem('demo.settings')).theme")
    assert stored == "light"

    # A switch is operated with the space bar, which is a shortcut elsewhere.
    demo.page.focus("#track")
    press("Space")
    assert demo.page.is_checked("#track")
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
