"""Tests what the demo page does in a tab that another one hides, as the browser reports it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.browser import Image, write_camera
from tests.e2e.devtools import Tab, tab_of
from tests.helpers.service import Service

pytestmark = pytest.mark.browser


@pytest.fixture
def camera(bus: Image, tmp_path: Path) -> Path:
    """Return a file for a camera that shows the photo of the bus."""
    return write_camera(tmp_path / "bus.mjpeg", [bus] * 3)


@pytest.mark.parametrize("source", ["camera", "sample"])
async def test_results_go_on_in_a_hidden_tab_and_when_it_is_shown_again(
    service: Service, camera: Path, source: str
) -> None:
    async with tab_of(camera, f"{service.http_url}/?source={source}&autostart=1") as (browser, page):
        await page.wait("demo.counts.results >= 5 && !document.hidden")
        await Tab.open(browser, "about:blank")
        await page.wait("document.hidden")
        hidden_at = await page.evaluate("demo.counts.results")
        await page.wait(f"demo.counts.results >= {hidden_at} + 20")
        assert await page.evaluate("document.hidden")
        await page.show()
        await page.wait("!document.hidden")
        shown_at = await page.evaluate("demo.counts.results")
        await page.wait(f"demo.counts.results >= {shown_at} + 10")
        assert await page.evaluate("demo.connection.sessionsOpened") == 1
        assert await page.evaluate("demo.error") is None


async def test_a_hidden_tab_rests_if_the_user_wants_that(service: Service, camera: Path) -> None:
    async with tab_of(camera, f"{service.http_url}/?source=camera&autostart=1") as (browser, page):
        await page.wait("demo.counts.results >= 5")
        await page.evaluate("document.getElementById('background').click()")
        await Tab.open(browser, "about:blank")
        await page.wait("document.hidden")
        # Frames that were under way still have results; then no more are sent.
        await page.wait("demo.flow.nextSeq - 1 === demo.flow.ack")
        resting_at = await page.evaluate("demo.flow.nextSeq")
        await page.evaluate("new Promise((resolve) => setTimeout(resolve, 1500))")
        assert await page.evaluate("demo.flow.nextSeq") == resting_at
        await page.show()
        await page.wait(f"demo.flow.nextSeq >= {resting_at} + 5")
