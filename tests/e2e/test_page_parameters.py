"""Parameters that the user changes on the demo page reach the open session and change its results."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from tests.e2e.browser import DemoPage
from tests.e2e.test_page import overlap

pytestmark = pytest.mark.browser


def test_the_threshold_and_the_classes_change_results_without_a_new_connection(demo: DemoPage) -> None:
    demo.open("?source=camera&autostart=1")
    demo.wait("demo.latest && demo.latest.boxes.length >= 3")
    before = len(demo.latest["boxes"])

    slider = demo.page.locator("#threshold")
    slider.focus()
    slider.press("Home")
    demo.wait(f"demo.latest.cfg >= 1 && demo.latest.boxes.length > {before}")
    for _ in range(3):
        slider.press("PageUp")
    slider.press("End")
    demo.wait_text("#threshold-value", "95%")
    demo.wait("demo.latest.cfg >= 2 && demo.latest.boxes.every((row) => row[4] >= 0.95)")
    demo.evaluate("""() => {
      const slider = document.getElementById('threshold');
      slider.value = '0.3';
      slider.dispatchEvent(new Event('input', { bubbles: true }));
    }""")
    demo.wait("demo.latest.boxes.length >= 2 && demo.latest.boxes.every((row) => row[4] >= 0.3)")

    demo.page.click("#detected-classes [data-label=bus]")
    demo.wait_visible("#detected-classes [data-label=bus][aria-pressed=true]")
    demo.wait("demo.latest.boxes.length === 1 && demo.latest.boxes[0][5] === 5")
    demo.page.click("#all-classes summary")
    demo.page.fill("#class-search", "PERS")
    visible = demo.page.locator(".class-row:visible")
    demo.wait(lambda: visible.all_inner_texts() == ["person"])
    visible.locator("input").check()
    demo.wait("demo.latest.boxes.some((row) => row[5] === 0)")
    demo.wait(lambda: configured(demo)["classes"] == ["person", "bus"])
    demo.page.click("#classes-reset")
    demo.wait(lambda: configured(demo)["classes"] == [])

    demo.page.check("#track", force=True)
    demo.wait("demo.latest.boxes.length && demo.latest.boxes.every((row) => row.length === 7)")
    demo.page.click("#counts summary")
    with demo.page.expect_download() as waiting:
        demo.page.click("#counts-csv")
    header, *lines = Path(waiting.value.path()).read_text().splitlines()
    assert header == "start,seconds,class,count,kind,results"
    assert any(line.split(",")[2:5:2] == ['"bus"', "tracks"] for line in lines), lines
    assert demo.evaluate("demo.connection.sessionsOpened") == 1
    assert len(demo.sockets) == 1


def greatest_overlap(demo: DemoPage) -> float:
    """Return the greatest intersection over union of two boxes of the newest result."""
    boxes = [row[:4] for row in demo.latest["boxes"]]
    return max((overlap(first, second) for first, second in combinations(boxes, 2)), default=0.0)


def test_the_overlap_limit_applies_across_classes_until_the_defaults_return(demo: DemoPage) -> None:
    demo.open("?source=camera&autostart=1")
    demo.wait("demo.latest && demo.latest.boxes.length >= 3")
    demo.page.click("#advanced summary")
    demo.wait_text("#iou-threshold-value", "45%")
    assert not demo.page.is_visible("#model-defaults")
    # People stand in front of the bus. Boxes of different classes do not suppress each other by default.
    demo.wait(lambda: greatest_overlap(demo) > 0.06)
    demo.page.locator("#iou-threshold").press("Home")
    demo.page.check("#agnostic-nms", force=True)
    wanted = {"iou_threshold": 0.05, "agnostic_nms": True}
    demo.wait(lambda: wanted.items() <= configured(demo).items())
    cfg = max(message["cfg"] for message in demo.sent if message["type"] == "configure")
    demo.wait(f"demo.latest.cfg >= {cfg} && demo.latest.boxes.length")
    assert greatest_overlap(demo) <= 0.06

    demo.page.click("#model-defaults")
    demo.wait("demo.connection.sessionsOpened === 2 && demo.latest")
    hellos = [message for message in demo.sent if message["type"] == "hello"]
    assert hellos[1]["params"] == {"track": False}
    assert "resume" not in hellos[1]
    demo.wait_text("#iou-threshold-value", "45%")
    demo.wait(lambda: not demo.page.is_checked("#agnostic-nms"))


def test_the_number_of_boxes_is_limited_until_it_is_cleared(demo: DemoPage) -> None:
    demo.open("?source=camera&autostart=1")
    demo.wait("demo.latest && demo.latest.boxes.length >= 3")
    demo.page.click("#advanced summary")
    field = demo.page.locator("#max-detections")
    demo.wait(lambda: field.input_value() == "300")
    field.fill("1")
    field.press("Enter")
    demo.wait("demo.latest.boxes.length === 1")
    demo.wait_visible("#model-defaults")
    field.fill("5000")
    field.press("Tab")
    demo.wait(lambda: configured(demo).get("max_detections") == 1000)
    demo.wait(lambda: field.input_value() == "1000")
    assert demo.evaluate("demo.connection.sessionsOpened") == 1

    field.fill("")
    field.press("Tab")
    demo.wait("demo.connection.sessionsOpened === 2 && demo.latest?.boxes.length >= 3")
    demo.wait(lambda: field.input_value() == "300")
    demo.wait_hidden("#model-defaults")


def configured(demo: DemoPage) -> dict[str, object]:
    """Return the parameters that the server has confirmed last; empty before the first time."""
    messages = [message["params"] for message in demo.received if message["type"] == "configured"]
    return messages[-1] if messages else {}
