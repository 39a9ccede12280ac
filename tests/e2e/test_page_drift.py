"""Tests that the demo page's drift indicator names what has changed, and is hidden without a reference."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.e2e.browser import DemoPage, chromium
from tests.helpers.drift_rows import START
from tests.helpers.model_factory import blob_model
from tests.helpers.service import Service
from tests.helpers.simulated_clock import SimulatedClock
from tests.helpers.waiting import wait_for
from tests.integration.test_drift import QUIET, WINDOWS, Scene

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, chromium(playwright) as running:
        yield running


@pytest.mark.timeout(400)
def test_the_indicator_names_the_changed_features(browser: Browser, tmp_path: Path) -> None:
    reference = tmp_path / "r.json"
    # The reference is far brighter than what the cameras will show, and holds no feature but brightness.
    reference.write_text(json.dumps([{"brightness": 190 + place % 9} for place in range(300)]))
    with SimulatedClock(tmp_path / "clock", START) as clock:
        settings = QUIET | WINDOWS | clock.environment | {"REFERENCE_DATA_PATH": str(reference)}
        settings |= {"MODEL_V1_PATH": str(blob_model(tmp_path / "m.onnx")), "DRIFT_ENGINE": "builtin"}
        with Service(settings) as service:
            wait_for(lambda: service.get_json("/health")["sampling"] == "on")
            page = DemoPage(browser, service.http_url)
            page.open()
            page.wait(
                "document.getElementById('drift-indicator').textContent.includes('not enough frames yet')"
            )
            with ThreadPoolExecutor() as pool:  # Playwright already runs an event loop in this thread
                pool.submit(asyncio.run, Scene(service, clock).run(22)).result()
            wait_for(lambda: service.get_json("/health")["drift"] == "drift")
            page.wait("document.getElementById('drift-indicator').dataset.state === 'drift'")
            for name in ("gate", "posted"):  # the text is in a panel that is closed
                page.wait(
                    f"document.getElementById('drift-indicator').textContent.includes('{name} (brightness)')"
                )
            page.page.get_by_role("button", name="Drift", exact=True).click()
            page.wait_value("[...demo.drift.groups].sort()", ["gate", "posted"])
            page.page.locator(".drift-group[data-group=gate] .drift-bar.over").first.wait_for()
            link = page.page.locator(".drift-group[data-group=gate] a").get_attribute("href")
            assert link == "drift/report?group=gate"
            if "SCREENSHOT" in os.environ:
                page.page.screenshot(path=os.environ["SCREENSHOT"], full_page=True)
            # The page first shows what the service would learn; a second click replaces the reference.
            page.page.select_option("#drift-group", "gate")
            page.page.fill("#drift-hours", "24")
            before = service.get_json("/drift/status")["reference"]["sha256"]
            page.page.click("#drift-learn")
            page.wait("demo.drift.outcome.startsWith('The reference would be learned from gate: ')")
            assert service.get_json("/drift/status")["reference"]["sha256"] == before
            page.page.click("#drift-apply")
            page.wait("demo.drift.outcome.startsWith('Learned from gate: ')")
            wait_for(lambda: service.get_json("/drift/status")["reference"]["sha256"] != before)
            page.assert_clean()
            page.close()


def test_nothing_is_shown_where_there_is_no_reference(browser: Browser) -> None:
    with Service({}) as service:
        page = DemoPage(browser, service.http_url)
        with page.page.expect_response("**/drift/status"):
            page.open()
        page.wait_text("#connection", "Ready")
        assert not page.page.is_visible("#drift-badge")
        assert not page.page.is_visible("#drift-indicator")
        page.assert_clean()
        page.close()
