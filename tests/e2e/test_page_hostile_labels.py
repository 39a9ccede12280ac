"""S19: the page shows class names that contain markup as text: no script runs, and no policy is violated."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from tests.e2e.browser import DemoPage, chromium, write_camera
from tests.helpers.model_factory import null_model
from tests.helpers.service import Service

pytestmark = pytest.mark.browser

LABELS = [
    "<img src=x onerror=window.stolen=1>",
    "</li><script>window.stolen=2</script>",
    '" onmouseover="window.stolen=3',
    "javascript:window.stolen=4",
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoPage]:
    folder = tmp_path_factory.mktemp("labels")
    objects = [(20.0 + 60 * n, 20.0, 60.0 + 60 * n, 80.0, 0.9, n) for n in range(len(LABELS))]
    model = null_model(folder / "hostile.onnx", classes=len(LABELS), objects=objects)
    model.with_suffix(".json").write_text(json.dumps({"labels": LABELS, "name": LABELS[0]}))
    camera = write_camera(folder / "grey.mjpeg", [np.full((240, 320, 3), 90, np.uint8)] * 3)
    with (
        Service({"MODEL_V1_PATH": str(model), "STREAM_MIN_FPS": "0"}) as service,
        sync_playwright() as playwright,
        chromium(playwright, camera=camera) as browser,
    ):
        page = DemoPage(browser, service.http_url)
        yield page
        page.close()


def test_names_of_classes_and_models_are_text(demo: DemoPage) -> None:
    demo.open()
    demo.start("camera")
    demo.wait_for_results(3)
    demo.wait("document.getElementById('detected-classes').textContent.includes('<img src=x')")
    demo.page.click("#all-classes summary")
    demo.wait("document.getElementById('class-list').textContent.includes('</script>')")
    for chip in demo.page.locator("#detected-classes *").all():
        chip.hover(force=True)
    assert demo.evaluate("window.stolen === undefined")
    assert (
        demo.evaluate("document.querySelector('#detected-classes img, #class-list img, main script')") is None
    )
    demo.assert_clean()


def test_the_policy_stops_a_script_that_got_in_nevertheless(demo: DemoPage) -> None:
    demo.open()
    demo.evaluate(
        "(() => { const e = document.createElement('div');"
        " e.innerHTML = '<img src=x onerror=\"window.stolen=1\">'; document.body.append(e); })()"
    )
    demo.wait("window.violations.length > 0")
    assert demo.evaluate("window.stolen === undefined")
