"""The evaluation: widths are as stated, doubled objects are counted, the card says what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zxingcpp

from models.training import card, widths
from models.training.measure import empty_share, two_classes
from models.training.symbols import CLASSES


@pytest.mark.parametrize(("kind", "part"), [("square", 4), ("square", 8), ("linear", 4)])
def test_a_code_has_the_width_and_place_that_its_box_says(kind: str, part: int) -> None:
    read = 0
    for image, box, _ in widths.pictures(kind, part, 4):
        x1, y1, x2, y2 = box[0]
        assert 0.93 < (x2 - x1) / (1280 / part) < 1.35  # turned codes are wider
        for code in zxingcpp.read_barcodes(image):
            at = code.position.top_left
            assert x1 - 12 < at.x < x2
            assert y1 - 12 < at.y < y2 + 12
            read += 1
    assert read >= 3


def test_the_smallest_width_is_where_recall_first_falls() -> None:
    found = dict.fromkeys(widths.PARTS, 40)
    assert widths.smallest_part(found) == widths.PARTS[-1]
    assert widths.smallest_part(found | {10: 35}) == 8
    assert widths.smallest_part(dict.fromkeys(widths.PARTS, 0)) is None


def test_detectors_are_asked_for_each_width() -> None:
    def blind(_: object) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        return np.zeros((0, 6), np.float32)

    (found,) = widths.found_by_width([blind], "linear", 1)
    assert found == dict.fromkeys(widths.PARTS, 0)


def test_boxes_of_two_classes_on_one_object_are_counted() -> None:
    boxes = np.array(
        [[0, 0, 10, 10, 0.9, 0], [0, 0, 10, 9, 0.8, 1], [50, 50, 60, 60, 0.9, 2], [50, 50, 60, 59, 0.5, 2]],
        np.float32,
    )
    assert two_classes(boxes) == (2, 1)
    assert two_classes(boxes[:0]) == (0, 0)


def result(name: str, sha256: str) -> dict[str, Any]:
    return {
        "name": name,
        "sha256": sha256,
        "threshold": 0.35,
        "photographs": {
            "split": "ab",
            "recall": {label: [9, 10] for label in CLASSES},
            "precision": 0.95,
            "two_classes": [1, 50],
            "empty": [0, 3],
        },
        "empty": {"drawn brick": [1, 20], "drawn room": [2, 60], "video people.mp4": [3, 100]},
        "width": {
            kind: {"recall": dict.fromkeys(map(str, widths.PARTS), 0.9), "smallest": 28}
            for kind in widths.KINDS
        },
    }


def test_figures_are_written_into_the_card_and_the_manifest(tmp_path: Path) -> None:
    results = [result("codes_v1", "11"), result("codes_v2", "22")]
    assert empty_share(results[0], "drawn ") == (3, 80)
    path = tmp_path / "card.md"
    path.write_text("before\n<!-- measured: begin -->\nformer figures\n<!-- measured: end -->\nafter\n")
    card.write(path, results)
    text = path.read_text()
    assert "former figures" not in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    for line in (
        "| recall barcode",
        "| two classes on one object | 2.0 % of 50",
        "| drawn, all kinds",
        "3.8 % of 80",
    ):
        assert line in text, line
    path.write_text("no marks")
    with pytest.raises(ValueError, match="measured: begin"):
        card.write(path, results)
    model = tmp_path / "codes_v1.onnx"
    model.with_suffix(".json").write_text(json.dumps({"sha256": "11"}))
    card.write_metrics(model, results[0])
    metrics = json.loads(model.with_suffix(".json").read_text())["metrics"]["test"]
    assert metrics["set"] == "ab"
    assert metrics["recall"]["barcode"] == 0.9
    assert metrics["smallest_width"] == {"square": "1/28", "linear": "1/28"}
    with pytest.raises(ValueError, match="the figures are of 22"):
        card.write_metrics(model, results[1])
