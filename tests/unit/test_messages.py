"""Tests that errors about control messages name the field, and that unknown fields are reported."""

from __future__ import annotations

from typing import Any

import pytest

from inference.core.detection_params import DetectionParams
from streamer.protocol.client_messages import (
    Configure,
    Hello,
    Params,
    TextFrame,
    parse_message,
    resolve_params,
)
from streamer.protocol.wire import Codec, ProtocolError

LABELS = ("person", "bus", "tie")


def test_a_bare_hello_means_one_live_jpeg_stream() -> None:
    hello = parse_message({"type": "hello"})
    assert isinstance(hello, Hello)
    assert [(s.id, s.codec, s.mode) for s in hello.streams] == [(0, "jpeg", "live")]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"type": "hello", "streams": "x"}, "streams"),
        ({"type": "hello", "streams": []}, "streams"),
        ({"type": "hello", "streams": [{"id": 9}]}, "streams[0].id"),
        ({"type": "hello", "streams": [{"id": "0"}]}, "streams[0].id"),
        ({"type": "hello", "streams": [{"id": 0, "mode": "some"}]}, "streams[0].mode"),
        ({"type": "hello", "streams": [{"id": 0, "fps": -1.0}]}, "streams[0].fps"),
        ({"type": "hello", "streams": [{"id": i} for i in range(9)]}, "streams"),
        ({"type": "hello", "params": {"conf_threshold": -0.1}}, "params.conf_threshold"),
        ({"type": "hello", "params": {"conf_threshold": "0.5"}}, "params.conf_threshold"),
        ({"type": "hello", "params": {"iou_threshold": 1.5}}, "params.iou_threshold"),
        ({"type": "hello", "params": {"max_detections": 0}}, "params.max_detections"),
        ({"type": "hello", "params": {"max_detections": 2.5}}, "params.max_detections"),
        ({"type": "hello", "params": {"classes": "person"}}, "params.classes"),
        ({"type": "hello", "params": {"classes": [None]}}, "params.classes[0]"),
        ({"type": "hello", "params": {"track": 1}}, "params.track"),
        ({"type": "hello", "params": {"agnostic_nms": 1}}, "params.agnostic_nms"),
        ({"type": "hello", "params": 3}, "params"),
        ({"type": "hello", "token": 5}, "token"),
        ({"type": "hello", "resume": {"session": ""}}, "resume.session"),
        ({"type": "configure", "params": {}}, "cfg"),
        ({"type": "configure", "cfg": -1, "params": {}}, "cfg"),
        ({"type": "configure", "cfg": True, "params": {}}, "cfg"),
        ({"type": "pause", "stream": 8}, "stream"),
        ({"type": "resume", "stream": "0"}, "stream"),
        ({"type": "ping", "t0": [1]}, "t0"),
        ({"type": "bye", "code": "x"}, "code"),
        ({"type": "frame", "seq": 0, "data": ""}, "seq"),
        ({"type": "frame", "seq": 1}, "data"),
        ({"type": "frame", "seq": 1, "data": "", "rotation": 4}, "rotation"),
    ],
)
def test_a_wrong_field_is_named(message: dict[str, Any], field: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_message(message)
    assert caught.value.field == field
    assert f"`{field}`" in str(caught.value)


def test_an_unknown_type_lists_the_known_ones() -> None:
    with pytest.raises(ProtocolError, match="hello, configure"):
        parse_message({"type": "helo"})


def test_unknown_fields_are_found_at_every_depth() -> None:
    message = parse_message(
        {"type": "hello", "x": 1, "params": {"conf_treshold": 0.5}, "streams": [{"id": 0, "foo": 2}]}
    )
    assert message.unknown_fields() == ["x", "streams[0].foo", "params.conf_treshold"]


def test_whole_numbers_are_fine_where_numbers_are() -> None:
    message = parse_message({"type": "configure", "cfg": 1, "params": {"conf_threshold": 1}})
    assert isinstance(message, Configure)
    assert message.params.conf_threshold == 1


def test_params_change_only_what_they_name() -> None:
    before = DetectionParams(0.3, 0.5, 10, (1,))
    across = resolve_params(Params(agnostic_nms=True), before, LABELS)
    assert across == DetectionParams(0.3, 0.5, 10, (1,), agnostic_nms=True)
    assert resolve_params(Params(), across, LABELS) == across
    assert resolve_params(Params(agnostic_nms=False), across, LABELS) == before
    assert resolve_params(Params(iou_threshold=0.6), before, LABELS) == DetectionParams(0.3, 0.6, 10, (1,))


def test_classes_may_be_labels_or_numbers_and_an_empty_list_means_all() -> None:
    before = DetectionParams(class_ids=(1,))
    assert resolve_params(Params(classes=["tie", 0, "tie"]), before, LABELS).class_ids == (2, 0)
    assert resolve_params(Params(classes=[]), before, LABELS).class_ids == ()


@pytest.mark.parametrize("item", ["cat", 3, -1])
def test_a_class_the_model_does_not_have_is_named(item: str | int) -> None:
    with pytest.raises(ProtocolError, match=r"params\.classes\[1\].*person, bus, tie"):
        resolve_params(Params(classes=["bus", item]), DetectionParams(), LABELS)


def test_a_debugging_frame_carries_base64() -> None:
    message = parse_message({"type": "frame", "seq": 3, "ts": 5, "codec": "png", "data": "AAEC"})
    assert isinstance(message, TextFrame)
    frame = message.to_frame()
    assert (frame.seq, frame.codec, frame.payload) == (3, Codec.PNG, b"\x00\x01\x02")


@pytest.mark.parametrize(("change", "field"), [({"data": "%%%"}, "data"), ({"codec": "gif"}, "codec")])
def test_a_debugging_frame_that_cannot_be_read_names_the_field(change: dict[str, str], field: str) -> None:
    message = parse_message({"type": "frame", "seq": 3, "data": "AAEC", **change})
    assert isinstance(message, TextFrame)
    with pytest.raises(ProtocolError) as caught:
        message.to_frame()
    assert caught.value.field == field
