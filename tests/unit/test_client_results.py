"""Tests typed results: numpy arrays, conversion to supervision, drawing, and the lines of the journal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import streamer.client
from streamer.cli.push_report import Journal, describe_detections
from streamer.client import Detections, Drop, FrameError, Ledger, Result
from streamer.client.capture import Captured
from streamer.client.errors import SaveFailed
from streamer.client.results import Outcome
from streamer.imaging.draw import box_colour, draw_on_copy

ROWS = [[10, 20, 60, 80, 0.9, 1, 7], [0, 0, 5, 5, 0.4, 9, 8]]
FRAME = Captured(3, 0.3, 0.1, np.zeros((100, 100, 3), np.uint8), "a.jpg")


def detections() -> Detections:
    return Detections.from_rows(ROWS, ["person", "bus"])


def test_supervision_gets_boxes_names_and_tracks() -> None:
    sv = pytest.importorskip("supervision")
    converted = detections().to_supervision()
    assert isinstance(converted, sv.Detections)
    assert converted.xyxy.tolist() == [[10, 20, 60, 80], [0, 0, 5, 5]]
    assert converted.class_id.tolist() == [1, 9]
    assert converted.tracker_id.tolist() == [7, 8]
    assert converted.data["class_name"].tolist() == ["bus", "9"]
    empty = Detections.from_rows([], ["person"]).to_supervision()
    assert len(empty) == 0
    assert len(converted[converted.confidence > 0.5]) == 1


def test_the_texts_of_codes_follow_their_boxes() -> None:
    found = Detections.from_rows(ROWS, ["person", "bus"], [None, "4006381333931"], [None, "EAN-13"])
    assert [(box.text, box.format) for box in found] == [(None, None), ("4006381333931", "EAN-13")]
    assert found[[1, 0]].texts == ("4006381333931", None)
    assert found.scaled(2.0, 2.0)[1].format == "EAN-13"
    items = [
        {"box": [0, 0, 1, 1], "score": 1, "class_id": 0, "label": "qr_code", "text": "a", "format": "QR Code"}
    ]
    assert next(iter(Detections.from_json(items))).text == "a"
    assert describe_detections(found)[1]["text"] == "4006381333931"
    assert "text" not in describe_detections(found)[0]


@pytest.mark.parametrize("texts", [None, [], ["a"], "ab", {"0": "a"}, [None, None], [1, {}]])
def test_fields_of_a_server_that_are_no_texts_give_no_texts(texts: object) -> None:
    found = Detections.from_rows(ROWS, ["person"], texts)
    assert [box.text for box in found] == [None, None]


def test_supervision_gets_the_texts() -> None:
    pytest.importorskip("supervision")
    found = Detections.from_rows(ROWS, ["person"], [None, "a"], [None, "QR Code"])
    assert found.to_supervision().data["text"].tolist() == ["", "a"]
    assert "text" not in detections().to_supervision().data


def test_drawing_shows_the_beginning_of_a_text() -> None:
    box = Detections.from_rows([[5, 60, 60, 80, 0.9, 0]], ["qr_code"], ["a\nb\u202e" * 999], ["QR Code"])
    without = Detections.from_rows([[5, 60, 60, 80, 0.9, 0]], ["qr_code"])
    paper = np.zeros((100, 600, 3), np.uint8)
    written, plain = draw_on_copy(paper, box), draw_on_copy(paper, without)
    assert (written != plain).any(axis=(1, 2)).any()
    assert not (written != plain)[:, :60].any(), "the text stands behind label and score"


def test_arrays_are_read_only_and_iteration_gives_plain_values() -> None:
    found = detections()
    with pytest.raises(ValueError, match="read-only"):
        found.xyxy[0, 0] = 1
    first = next(iter(found))
    assert (first.box, first.label, first.class_id, first.track_id) == ((10, 20, 60, 80), "bus", 1, 7)
    assert found.scaled(1.0, 1.0) is found


def test_drawing_leaves_the_image_alone_and_marks_the_box() -> None:
    drawn = draw_on_copy(FRAME.pixels(), detections())
    assert not FRAME.pixels().any()
    np.testing.assert_allclose(drawn[50, 10], box_colour(1), atol=40)  # smoothed edges


def test_the_journal_has_a_line_for_each_frame_sent_and_a_summary(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    journal = Journal(str(path))
    outcomes: list[Outcome] = [
        Result(1, 0.3, FRAME, detections(), 100, 100, 0, 0.02, {"infer_ms": 3.0}),
        Drop(2, 0.3, FRAME, "stale"),
        FrameError(3, 0.3, FRAME, "inference_failed", "why"),
        Drop(0, 0.3, FRAME, "replaced"),
    ]
    for outcome in outcomes:
        journal.outcome(FRAME, outcome)
    journal.summary(4, Ledger(offered=4, sent=3))
    journal.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["type"] for line in lines] == ["result", "drop", "error", "summary"]
    assert {line["frame"] for line in lines[:3]} == {3}
    assert lines[0]["detections"][0]["track_id"] == 7
    assert lines[0]["name"] == "a.jpg"
    assert lines[3]["captured"] == 4
    with pytest.raises(SaveFailed, match=r"no/such"):
        Journal(str(tmp_path / "no" / "such"))


def test_every_public_name_can_be_had() -> None:
    for name in streamer.client.__all__:
        assert getattr(streamer.client, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = streamer.client.nonsense


def test_importing_the_client_loads_no_server_code() -> None:
    """Importing it loads no heavy library either; using it loads only the protocol and shared modules."""
    code = (
        "import sys, streamer.client; light = set(sys.modules);"
        "from streamer.client import DetectStream, DetectStreamSync, predict;"
        "from streamer.cli import preview, pusher, recorder; from streamer.client import sources;"
        "print(' '.join(light)); print(' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    light, used = (set(line.split()) for line in done.stdout.splitlines())
    heavy = {"cv2", "av", "aiohttp", "onnxruntime", "pydantic", "prometheus_client", "aiortc", "supervision"}
    assert {name.split(".")[0] for name in light} & heavy == set()
    for loaded in (light, used):
        ours = {name for name in loaded if name.split(".")[0] in ("streamer", "inference")}
        own = ("streamer.client", "streamer.cli", "streamer.imaging")
        assert {name for name in ours if not name.startswith(own)} <= {
            "streamer",
            "streamer.assets",
            "streamer.core.extras",
            "streamer.core.redact",
            "streamer.core.signals",
            "streamer.core.terminal",
            "streamer.core",
            "streamer.core.backoff",
            "streamer.protocol",
            "streamer.protocol.close_codes",
            "streamer.protocol.wire",
            "streamer.protocol.message_values",
        }
        # The client reads image headers with the code of the service, but decodes with its own.
        assert "streamer.imaging.decode" not in loaded
    assert used & {"onnxruntime", "pydantic", "prometheus_client", "aiortc", "supervision"} == set()
