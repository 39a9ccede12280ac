"""Tests the versions page: its numbers are those of `GET /versions`, and it can be used without a mouse."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from inference.models.manifest import manifest_path
from tests.e2e.browser import WAIT_S, DemoPage, chromium
from tests.e2e.webrtc_tools import npm_package
from tests.helpers.model_factory import blob_model
from tests.helpers.service import PATIENT, Service
from tests.unit.images import encode, scene

pytestmark = pytest.mark.browser
expect.set_options(timeout=WAIT_S * 1e3)

KEY = "k" * 40
SET = "cd" * 32


def scores(map50: float, **more: Any) -> dict[str, Any]:
    return {
        "set": SET,
        "part": "test",
        "pictures": 24,
        "map50": map50,
        "intervals": {"map50": [map50 - 0.05, map50 + 0.04]},
        "false_per_empty_picture": 0.25,
        "run_ms": 7.2,
    } | more


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Run a service with two models whose manifests have scores on the same pictures, and send it images."""
    folder: Path = tmp_path_factory.mktemp("models")
    settings = {"API_KEYS": KEY, "WORKERS": "2"}
    for version, name, map50 in (("V1", "mugs", 0.8), ("V2", "cups", 0.9)):
        path = blob_model(folder / f"{name}.onnx")
        metrics = {
            "promotion": scores(map50, promoted={"as": version.lower(), "at": "2026-12-01T15:00:00+00:00"})
        }
        manifest_path(path).write_text(json.dumps({"name": name, "metrics": metrics}))
        settings[f"MODEL_{version}_PATH"] = str(path)
    with Service(PATIENT | settings) as running:
        for version, count in (("v1", 3), ("v2", 2)):
            for _ in range(count):
                post(running, f"/{version}/predict", encode(scene()))
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, chromium(playwright) as running:
        yield running


def post(service: Service, path: str, body: bytes) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=WAIT_S)
    connection.request("POST", path, body, {"Authorization": f"Bearer {KEY}"})
    assert connection.getresponse().status == 200
    connection.close()


def row(demo: DemoPage, name: str) -> Any:
    """Return the row of a table, by its heading."""
    heading = demo.page.get_by_role("rowheader", name=name, exact=True)
    return demo.page.get_by_role("row").filter(has=heading)


def enter_key(demo: DemoPage) -> None:
    demo.page.get_by_label("API key").fill(KEY)
    demo.page.get_by_role("button", name="Apply").press("Enter")


def test_the_page_shows_the_figures_side_by_side(service: Service, browser: Browser) -> None:
    demo = DemoPage(browser, service.http_url)
    demo.open()
    demo.page.get_by_role("link", name="Compare the versions").click()
    for version, name in (("v1", "mugs"), ("v2", "cups")):
        card = demo.page.locator(f".model[data-version={version}]")
        expect(card.get_by_role("heading")).to_contain_text(name)
        expect(card).to_contain_text(f"{name}.onnx")
        expect(card).to_contain_text(f"as {version}, ")
    # Without a key nobody sees the traffic. What everybody sees is shown, with its interval.
    expect(row(demo, "mAP50").get_by_role("cell").nth(1)).to_have_text("0.8000.750 to 0.840")
    expect(row(demo, "mAP50").get_by_role("cell").nth(2)).to_have_text("0.9000.850 to 0.940")
    expect(row(demo, "False boxes per empty picture").get_by_role("cell").nth(1)).to_have_text("0.25")
    expect(demo.page.locator("#scores-note")).to_contain_text("Both on the same pictures")
    expect(demo.page.locator("#traffic")).to_be_hidden()
    enter_key(demo)
    expect(row(demo, "Requests answered").get_by_role("cell").nth(1)).to_have_text("3")
    expect(row(demo, "Requests answered").get_by_role("cell").nth(2)).to_have_text("2")
    expect(demo.page.locator("#key-form")).to_be_hidden()
    expect(demo.page.locator("#traffic")).to_contain_text("all workers together")
    # The page says of every absent figure why it is absent.
    demo.page.get_by_text("What is not known, and why").click()
    expect(demo.page.locator("#absent-list")).to_contain_text("the manifest of mugs.onnx does not have it")
    # New figures appear by themselves.
    post(service, "/v1/predict", encode(scene()))
    expect(row(demo, "Requests answered").get_by_role("cell").nth(1)).to_have_text("4")
    demo.assert_clean()
    demo.close()


def test_the_page_is_accessible_in_both_themes_and_sizes(
    service: Service, browser: Browser, tmp_path: Path
) -> None:
    axe = (npm_package("axe-core@4.10", tmp_path) / "axe.min.js").read_text()
    # Without reduced motion, axe would measure colours in the middle of a transition.
    demo = DemoPage(browser, service.http_url, reduced_motion="reduce")
    demo.page.goto(f"{service.http_url}/versions")
    enter_key(demo)
    row(demo, "Requests answered").wait_for()
    demo.evaluate(f"() => {{ {axe} }}")
    demo.page.get_by_text("What is not known, and why").click()
    found: list[str] = []
    for width, height in ((1280, 800), (390, 844), (320, 256)):
        demo.page.set_viewport_size({"width": width, "height": height})
        sizes = demo.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert sizes[0] <= sizes[1], f"the page scrolls sideways at {width}"
        for theme in ("dark", "light"):
            demo.page.emulate_media(color_scheme=theme)
            found += demo.evaluate(
                """async (state) => {
                  const { violations } = await axe.run(document, { resultTypes: ['violations'] });
                  return violations.flatMap(({ id, nodes }) =>
                    nodes.map((node) => `${state}: ${id}: ${node.html.slice(0, 160)}`));
                }""",
                f"{theme}, {width}",
            )
        # The tables keep their roles where the style turns rows into grids.
        assert row(demo, "Requests answered").get_by_role("cell").count() == 3
    assert found == []
    # Every control is reached by keyboard, and shows the focus.
    demo.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(8):
        demo.page.keyboard.press("Tab")
        reached.add(demo.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        if demo.evaluate("document.activeElement !== document.body"):
            assert demo.evaluate("getComputedStyle(document.activeElement).outlineStyle !== 'none'"), reached
    assert {"Real-time vision", "theme-button", "API", "What is not known, and why"} <= reached
    demo.assert_clean()
    demo.close()
