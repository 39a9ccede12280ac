"""Forms of an answer: content negotiation, the fields of an answer, and their two encodings."""

from __future__ import annotations

import json

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.models.model import Family, ModelInfo, Placement
from streamer.http.problem_details import Problem
from streamer.imaging.code_text import CodeText
from streamer.predict.responses import AnswerForm, choose_form, describe_prediction, encode_answer
from streamer.scheduling.job import Prediction

MODEL = ModelInfo(
    "nano", "ab" * 32, Family.YOLOX, ("qr_code", "ütiquette"), 416, 416, Placement.TOP_LEFT, 114
)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", AnswerForm.JSON),
        ("*/*", AnswerForm.JSON),
        ("application/json", AnswerForm.JSON),
        ("application/msgpack", AnswerForm.MSGPACK),
        ("Application/X-Msgpack; q=0.5", AnswerForm.MSGPACK),
        ("image/jpeg", AnswerForm.JPEG),
        ("image/*", AnswerForm.JPEG),
        ("application/json;q=0.5, application/msgpack", AnswerForm.MSGPACK),
        ("application/json, application/msgpack", AnswerForm.JSON),
        ("text/html,application/xhtml+xml,*/*;q=0.8", AnswerForm.JSON),
        ("application/json;q=0, image/jpeg;q=0.1", AnswerForm.JPEG),
    ],
)
def test_the_preferred_form_is_chosen(accept: str, form: AnswerForm) -> None:
    assert choose_form(accept) is form


@pytest.mark.parametrize(
    "accept", ["text/html", "image/png", "application/json;q=0", "application/json;q=x", ","]
)
def test_a_form_that_does_not_exist_is_refused_with_those_that_do(accept: str) -> None:
    with pytest.raises(Problem, match="application/json, application/msgpack, image/jpeg") as caught:
        choose_form(accept)
    assert caught.value.status == 406


@given(st.text(max_size=80))
def test_no_accept_header_breaks_the_choice(accept: str) -> None:
    try:
        assert choose_form(accept) in AnswerForm
    except Problem as problem:
        assert problem.status == 406


def test_the_map_is_as_documented_in_both_encodings() -> None:
    boxes = np.array([[1.23456, 2, 30.999, 40, 0.912345, 1], [0, 0, 5, 5, 0.25, 9]], np.float32)
    answer = describe_prediction(
        Prediction(1280, 720, boxes, 3.14159, 0.8, 14.2, 0.5, 2), "v1", MODEL, 19.0001, "id1"
    )
    assert answer == {
        "model": {"version": "v1", "name": "nano", "sha256": "ab" * 32},
        "image": {"width": 1280, "height": 720},
        "detections": [
            {"box": [1.23, 2.0, 31.0, 40.0], "score": 0.9123, "class_id": 1, "label": "ütiquette"},
            {"box": [0.0, 0.0, 5.0, 5.0], "score": 0.25, "class_id": 9, "label": "9"},
        ],
        "timings_ms": {"decode": 3.14, "queue": 0.8, "inference": 14.2, "total": 19.0},
        "request_id": "id1",
    }
    assert json.loads(encode_answer(answer, AnswerForm.JSON)) == answer
    assert msgpack.unpackb(encode_answer(answer, AnswerForm.MSGPACK)) == answer


def test_a_detection_has_the_text_of_its_code() -> None:
    boxes = np.array([[0, 0, 9, 9, 0.9, 0], [9, 9, 20, 20, 0.5, 0]], np.float32)
    prediction = Prediction(
        64, 64, boxes, 1.0, 1.0, 1.0, 1.0, 1, codes=(None, CodeText("ü</b>\n", "QR Code"))
    )
    answer = describe_prediction(prediction, "v1", MODEL, 9.0, "id1")
    read = json.loads(encode_answer(answer, AnswerForm.JSON))["detections"]
    assert [(each.get("text"), each.get("format")) for each in read] == [(None, None), ("ü</b>\n", "QR Code")]
    assert "text" not in read[0]
    assert b": " not in encode_answer(answer, AnswerForm.JSON)
