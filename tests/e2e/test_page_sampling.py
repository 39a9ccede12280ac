"""The demo page says that the service may save frames, and lets a user report a frame or opt out."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from streamer.datasets.source import FolderSource, read_samples
from tests.e2e.browser import DemoPage
from tests.helpers.service import Service
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.browser


#: Makes the page ask the server every second, and not every ten seconds, how many frames it has saved, and
#: show for a minute, and not for 2.5 seconds, what became of a report.
_OTHER_TIMES = """(() => {
  const usual = window.setTimeout;
  const others = { 10000: 1000, 2500: 60000 };
  window.setTimeout = (act, ms, ...rest) => usual(act, others[ms] ?? ms, ...rest);
})()"""


def settings(yolox_nano: Path, folder: Path, **more: str) -> dict[str, str]:
    base = {"MODEL_V1_PATH": str(yolox_nano), "STREAM_MIN_FPS": "0", "SAMPLES_DIR": str(folder)}
    return base | {"UNCERTAINTY_THRESHOLD": "2", "SAMPLES_RANDOM_EVERY_S": "0"} | more


def test_a_person_reports_a_image_sees_it_counted_and_can_refuse(
    yolox_nano: Path, browser: Browser, tmp_path: Path
) -> None:
    with Service(settings(yolox_nano, tmp_path / "samples")) as service:
        wait_for(lambda: service.get_json("/health")["sampling"] == "on")
        demo = DemoPage(browser, service.http_url)
        demo.page.add_init_script(_OTHER_TIMES)
        demo.open()
        demo.wait("document.getElementById('start-hint').textContent.includes('may save single frames')")
        demo.wait_visible("#keep-field")
        assert not demo.page.is_visible("#report")
        demo.start("camera")
        demo.wait_for_results()
        demo.page.click("#report")
        demo.wait(lambda: any(message["type"] == "reported" for message in demo.received))
        demo.wait("document.getElementById('report').title === 'Saved for training'")
        demo.wait("document.getElementById('samples-hint').textContent.startsWith('1 frame saved')")
        # A saved sample is in the spool; the sampling process then moves it to the folder.
        samples = FolderSource(tmp_path / "samples")
        wait_for(lambda: list(read_samples(samples)))
        (sample,) = read_samples(samples)
        assert sample.reasons[0] == "user"
        demo.page.click("#keep-field")
        demo.wait(lambda: any(message.get("collect") is False for message in demo.sent))
        demo.wait_for_results()
        demo.wait_hidden("#report")
        demo.assert_clean()
        demo.close()


def test_nothing_is_said_of_samples_where_none_are_taken(browser: Browser) -> None:
    with Service({"STREAM_MIN_FPS": "0", "SAMPLING": "0"}) as service:
        demo = DemoPage(browser, service.http_url)
        demo.open()
        demo.start("camera")
        demo.wait_for_results()
        assert not demo.page.is_visible("#keep-field")
        assert not demo.page.is_visible("#report")
        assert "save" not in demo.evaluate("document.getElementById('start-hint').textContent")
        demo.assert_clean()
        demo.close()
