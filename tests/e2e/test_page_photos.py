"""The demo page shows boxes, answers and commands for photos that a user chooses, drops or pastes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.conftest import shared
from tests.e2e.browser import DemoPage, chromium
from tests.e2e.test_page import BUS_COLOUR
from tests.helpers.service import Service

pytestmark = pytest.mark.browser

#: JavaScript that gives the page a photo of one colour, as a drop or as a paste.
_HAND_OVER = """async (kind) => {
  const canvas = new OffscreenCanvas(64, 48);
  canvas.getContext('2d').fillRect(0, 0, 64, 48);
  const transfer = new DataTransfer();
  transfer.items.add(new File([await canvas.convertToBlob()], `${kind}.png`, { type: 'image/png' }));
  const options = { bubbles: true, cancelable: true };
  const event = kind === 'paste'
    ? new ClipboardEvent('paste', { clipboardData: transfer, ...options })
    : new DragEvent('drop', { dataTransfer: transfer, ...options });
  document.querySelector(kind === 'paste' ? 'body' : '#photos').dispatchEvent(event);
}"""


#: Makes the page show for a minute, and not for two seconds, that a text was copied.
_LONG_CONFIRMATION = """(() => {
  const usual = window.setTimeout;
  window.setTimeout = (act, ms, ...rest) => usual(act, ms === 2000 ? 60000 : ms, ...rest);
})()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright, chromium(playwright) as running:
        yield running


def output_of(command: list[str], folder: Path) -> str:
    """Run a command in a folder and return its standard output."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def test_photos_have_boxes_and_commands_that_repeat_the_answer(
    service: Service, browser: Browser, tmp_path: Path
) -> None:
    photo = tmp_path / "it's a bus.jpg"
    photo.write_bytes(shared("data/images/bus.jpg").read_bytes())
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image at all")
    demo = DemoPage(browser, service.http_url, permissions=["clipboard-read", "clipboard-write"])
    demo.page.add_init_script(_LONG_CONFIRMATION)
    demo.open("?source=sample&autostart=1")
    demo.wait("demo.connection.name === 'open'")
    demo.page.set_input_files("#photo-files", [photo, broken])
    demo.wait(
        "demo.photos.photos.length === 2 && demo.photos.pending === 0 && demo.connection.name === 'idle'"
    )
    shown = demo.evaluate("demo.photos")
    assert [entry["state"] for entry in shown["photos"]] == ["done", "failed"]
    answer = json.loads(shown["text"])
    assert shown["photos"][0]["detections"] == len(answer["detections"]) >= 4
    demo.wait_text("#photo-status", "1 bus")
    demo.wait_hidden("#stage")

    with demo.page.expect_download() as waiting:
        demo.page.click("#photo-save")
    saved_path = tmp_path / "saved.png"
    waiting.value.save_as(saved_path)
    saved = np.asarray(cv2.imread(str(saved_path)))
    assert saved.shape[:2] == (answer["image"]["height"], answer["image"]["width"])
    assert (np.abs(saved.astype(int) - BUS_COLOUR[::-1]).max(axis=2) < 8).sum() > 200

    demo.page.check("[name=photo-format][value=curl]", force=True)
    demo.page.click("#photo-copy")
    demo.wait("document.getElementById('photo-copy').textContent === 'Copied'")
    command = demo.evaluate("navigator.clipboard.readText()")
    again = json.loads(output_of([shutil.which("sh") or "/bin/sh", "-c", command], tmp_path))
    assert [entry["box"] for entry in again["detections"]] == [entry["box"] for entry in answer["detections"]]
    demo.page.check("[name=photo-format][value=python]", force=True)
    printed = output_of([sys.executable, "-c", demo.evaluate("demo.photos.text")], tmp_path)
    assert [line.split()[0] for line in printed.splitlines()] == [
        entry["label"] for entry in answer["detections"]
    ]

    # The arrow key selects the photo that failed. The change of a setting then applies to every photo.
    demo.page.focus(".thumbnail[aria-pressed=true]")
    demo.page.keyboard.press("ArrowRight")
    demo.wait_value("demo.photos.selected", 1)
    demo.wait_text("#photo-status", "broken.png")
    demo.page.locator("#threshold").press("End")
    demo.wait(f"demo.photos.pending === 0 && demo.photos.photos[0].detections < {len(answer['detections'])}")
    demo.wait("demo.photos.text.includes('conf_threshold=0.95')")
    demo.page.click("#advanced summary")
    demo.page.check("#agnostic-nms", force=True)
    demo.wait("demo.photos.photos[0].state === 'done' && demo.photos.text.includes('agnostic_nms=1')")
    for kind in ("drop", "paste"):
        demo.evaluate(_HAND_OVER, kind)
        demo.wait(f"demo.photos.pending === 0 && demo.photos.photos.at(-1).name === '{kind}.png'")
    demo.wait_visible("#photo-note")
    demo.page.click("#photos-close")
    demo.wait_visible(".start")
    demo.assert_clean(but=("status of 415",))
    demo.close()
