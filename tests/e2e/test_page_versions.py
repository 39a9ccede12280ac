"""Tests the versions page: its numbers are those of `GET /versions`, and it can be used without a mouse."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Route, expect, sync_playwright

from inference.models.manifest import manifest_path
from tests.e2e.browser import WAIT_S, DemoPage, chromium
from tests.e2e.webrtc_tools import npm_package
from tests.helpers.model_factory import Input, blob_model
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
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the models."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[Service]:
    """Run a service with two models whose manifests have scores on the same pictures, and send it images."""
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


def violations(demo: DemoPage) -> list[str]:
    """Return what axe finds in both themes and three sizes; its script must have been run on the page."""
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
    return found


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
    assert violations(demo) == []
    # The tables keep their roles where the style turns rows into grids.
    assert row(demo, "Requests answered").get_by_role("cell").count() == 3
    # Every control is reached by keyboard, and shows the focus.
    demo.evaluate("document.activeElement.blur()")
    reached = set()
    for _ in range(20):
        demo.page.keyboard.press("Tab")
        reached.add(demo.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
        if demo.evaluate("document.activeElement !== document.body"):
            assert demo.evaluate("getComputedStyle(document.activeElement).outlineStyle !== 'none'"), reached
    assert {"Real-time vision", "theme-button", "API", "What is not known, and why"} <= reached
    demo.assert_clean()
    demo.close()


def compared(**changes: Any) -> dict[str, Any]:
    """Return the field `comparison` of two models of which the second finds fewer boxes."""
    quantity = {
        "difference": -0.12,
        "interval": [-0.14, -0.1],
        "always_valid": [-0.17, -0.07],
        "unit": "share",
        "margin": 0.05,
        "verdict": "differs",
        "judged": True,
    }
    box = {"box": [8, 8, 40, 30], "score": 0.8, "label": "mug"}
    at = "2026-12-01T1{}:00:00+00:00"
    periods = [
        {"at": at.format(hour), "minutes": 5, "frames": 40, "first": 2.5, "second": 2.2, "agreement": 0.8}
        for hour in range(4)
    ]
    return {
        "first": "v1",
        "second": "v2",
        "verdict": "differs",
        "text": "v2 differs: it finds 12 % fewer boxes.",
        "remarks": ["Different is not worse."],
        "counted": {
            "frames": 1600,
            "streams": 3,
            "same_direction": 3,
            "blocks": 90,
            "windows": 40,
            "windows_needed": 30,
            "hours": 3.33,
        },
        "quantities": {"boxes": quantity, "score": quantity | {"verdict": "undecided", "unit": "absolute"}},
        "classes": {
            "mug": quantity,
            "key": quantity | {"verdict": "no_difference", "always_valid": [None, 0]},
        },
        "both": 3300,
        "only_first": 600,
        "only_second": 120,
        "history": periods,
        "labelled": {"verdict": "undecided", "text": "mAP50 0.90 of v2, 0.88 of v1."},
        "pictures": [
            {
                "url": "versions/pictures/0-1",
                "at": periods[0]["at"],
                "width": 64,
                "height": 48,
                "rotation": 1,
                "disagreement": 0.5,
                "boxes": {"v1": [box, box], "v2": []},
            }
        ],
        "absent": {},
    } | changes


def show_comparison(demo: DemoPage, service: Service, comparison: dict[str, Any]) -> None:
    """Open the page, with the answers of the service and this comparison in them."""

    def answer(route: Route) -> None:
        if route.request.headers.get("accept") != "application/json":
            route.continue_()
            return
        response = route.fetch()
        route.fulfill(response=response, json=response.json() | {"comparison": comparison})

    demo.page.route("**/versions", answer)
    image = encode(scene())
    demo.page.route(
        "**/versions/pictures/*", lambda route: route.fulfill(body=image, content_type="image/jpeg")
    )
    demo.page.goto(f"{service.http_url}/versions")
    expect(demo.page.locator("#verdict .verdict")).to_be_visible()


def test_the_page_shows_the_verdict_and_the_frames_that_differ(service: Service, browser: Browser) -> None:
    demo = DemoPage(browser, service.http_url)
    show_comparison(demo, service, compared())
    expect(demo.page.locator("#verdict .verdict")).to_have_text("v2 differs: it finds 12 % fewer boxes.")
    expect(demo.page.locator("#verdict")).to_contain_text("1,600 frames of 3 streams in 3.3 hours")
    expect(demo.page.locator("#verdict")).to_contain_text("Labelled pictures: undecided.")
    difference = demo.page.locator(".differences tr").filter(has_text="Number of boxes").locator(".number")
    minus = "\N{MINUS SIGN}"
    expect(difference).to_have_text(f"{minus}12%{minus}17% to {minus}7.0%")
    expect(demo.page.locator(".shares-legend")).to_contain_text("only v1 15% 600")
    expect(demo.page.locator("#pairs img")).to_have_count(2)
    expect(demo.page.locator("#pairs .side.first rect")).to_have_count(2)
    expect(demo.page.locator("#pairs .side.second")).to_contain_text("nothing")
    assert demo.evaluate("[...document.querySelectorAll('#pairs img')].every((image) => image.naturalWidth)")
    demo.assert_clean()
    demo.close()


def test_the_page_changes_what_is_served_and_shows_refusals(service: Service, browser: Browser) -> None:
    demo = DemoPage(browser, service.http_url)
    demo.page.goto(f"{service.http_url}/versions")
    form = demo.page.locator("form[data-command=shadow]")
    form.get_by_role("slider").fill("25")
    form.get_by_role("button").click()
    # Without a key the service refuses, says so, and the page asks for the key.
    answer = demo.page.locator("#commands .answer")
    expect(answer).to_have_attribute("data-state", "error")
    expect(answer).to_contain_text("key")
    enter_key(demo)
    form.get_by_role("slider").fill("25")
    form.get_by_role("button").click()
    expect(answer).to_have_text("Done: shadow.")
    expect(form.locator("output")).to_have_text("25%")
    demo.page.reload()
    expect(form.locator("output")).to_have_text("25%")
    demo.close()


def test_the_comparison_is_accessible_in_both_themes_and_sizes(
    service: Service, browser: Browser, tmp_path: Path
) -> None:
    axe = (npm_package("axe-core@4.10", tmp_path) / "axe.min.js").read_text()
    demo = DemoPage(browser, service.http_url, reduced_motion="reduce")
    show_comparison(demo, service, compared())
    demo.evaluate(f"() => {{ {axe} }}")
    assert violations(demo) == []
    demo.close()


def test_models_are_loaded_promoted_and_rolled_back_by_the_page(
    service: Service, folder: Path, browser: Browser
) -> None:
    """The last test of this file: it leaves v2 with another model."""
    blob_model(folder / "bowls.onnx", Input(metadata={"note": "another file"}))
    blob_model(folder / "spoons.onnx", Input(metadata={"names": "{0: 'spoon'}"}))
    demo = DemoPage(browser, service.http_url)
    demo.page.on("dialog", lambda dialog: dialog.accept())
    demo.page.goto(f"{service.http_url}/versions")
    form = demo.page.locator("form[data-command=load]")
    enter_key(demo)
    answer = demo.page.locator("#commands .answer")

    def heading(version: str) -> Any:
        return demo.page.locator(f".model[data-version={version}]").get_by_role("heading")

    def load(name: str, says: str) -> None:
        form.get_by_role("textbox", name="Load a file").fill(name)
        form.get_by_role("button", name="Load").click()
        expect(answer).to_contain_text(says)

    load("none.onnx", "none.onnx")
    load("spoons.onnx", "1 class (spoon)")
    expect(answer).to_have_attribute("data-state", "error")
    expect(heading("v2")).to_contain_text("cups")
    load("bowls.onnx", "Done: load.")
    expect(heading("v2")).to_contain_text("bowls")
    for command, name in (("promote", "bowls"), ("rollback", "mugs")):
        button = demo.page.locator(f"form[data-command={command}]").get_by_role("button")
        button.click()
        expect(answer).to_have_text(f"Done: {command}.")
        expect(heading("v1")).to_contain_text(name)
    form.get_by_role("checkbox", name="Its classes may be others").check()
    load("spoons.onnx", "Done: load.")
    expect(heading("v2")).to_contain_text("spoons")
    demo.close()
