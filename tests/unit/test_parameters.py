"""Tests the parameters of a predict request: ranges, names, classes, and errors that name the field."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.detection_params import DetectionParams
from streamer.http.problem_details import Problem
from streamer.predict.parameters import read_parameters

LABELS = ("person", "car", "traffic light", "7")


def read(
    *pairs: tuple[str, str], conf_threshold: float = 0.25, agnostic_nms: bool = False
) -> DetectionParams:
    defaults = DetectionParams(conf_threshold=conf_threshold, agnostic_nms=agnostic_nms)
    return read_parameters(pairs, LABELS, defaults)


def test_what_is_not_named_is_as_the_model_has_it() -> None:
    assert read() == DetectionParams(0.25, 0.45, 300, ())
    assert read(conf_threshold=0.0).conf_threshold == 0.0
    assert read(("conf_threshold", "0.5"), conf_threshold=0.1).conf_threshold == 0.5


def test_suppression_is_across_classes_if_the_request_or_the_model_says_so() -> None:
    assert read(("agnostic_nms", "1")).agnostic_nms
    assert read(("agnostic_nms", "true"), ("iou_threshold", "0.5")).agnostic_nms
    assert read(("iou_threshold", "0.5"), agnostic_nms=True).agnostic_nms
    assert not read(("agnostic_nms", "0"), agnostic_nms=True).agnostic_nms


@pytest.mark.parametrize(
    ("given_classes", "ids"),
    [
        (["person"], (0,)),
        (["car, traffic light"], (1, 2)),
        (["car", "person", "car"], (1, 0)),
        (["1", "0"], (1, 0)),
        (["7"], (3,)),
    ],
)
def test_classes_are_labels_or_ids(given_classes: list[str], ids: tuple[int, ...]) -> None:
    assert read(*(("classes", text) for text in given_classes)).class_ids == ids


@pytest.mark.parametrize(
    ("field", "text"),
    [
        *(
            (name, text)
            for name in ("conf_threshold", "iou_threshold")
            for text in ("nan", "inf", "-inf", "-0.1", "1.01", "", "half", "0,5", "1_0", "0x1", "true")
        ),
        *(("max_detections", text) for text in ("0", "-1", "1001", "1.5", "", "ten", "1_0", "²", "9" * 99)),
        *(("agnostic_nms", text) for text in ("", "2", "on", "-1")),
        *(("classes", text) for text in ("", "persons", "4", "-1", "person,", "PERSON", "9" * 99)),
    ],
)
def test_a_wrong_value_names_field_found_and_allowed(field: str, text: str) -> None:
    with pytest.raises(Problem) as caught:
        read((field, text))
    assert caught.value.status == 400
    assert caught.value.extra["field"] == field
    assert caught.value.extra["allowed"]
    assert f"`{field}`" in caught.value.detail


def test_unknown_and_repeated_names_are_errors() -> None:
    with pytest.raises(Problem, match="`confidence` is not known; allowed: conf_threshold, iou"):
        read(("confidence", "0.5"))
    with pytest.raises(Problem, match=r"`iou_threshold` is '0\.1 and 0\.2'; allowed: one value"):
        read(("iou_threshold", "0.1"), ("iou_threshold", "0.2"))


def test_a_long_list_of_labels_is_cut() -> None:
    with pytest.raises(Problem, match="label19 and 980 more") as caught:
        read_parameters([("classes", "x")], [f"label{i}" for i in range(1000)], DetectionParams())
    assert len(caught.value.detail) < 500


@given(st.sampled_from(["conf_threshold", "iou_threshold"]), st.floats(0, 1))
def test_every_number_in_range_is_taken_as_it_is(name: str, value: float) -> None:
    assert getattr(read((name, repr(value))), name) == value


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["conf_threshold", "iou_threshold", "max_detections", "classes", "x"]),
            st.text(max_size=12),
        ),
        max_size=5,
    )
)
def test_any_text_gives_sound_parameters_or_a_problem(pairs: list[tuple[str, str]]) -> None:
    try:
        params = read(*pairs)
    except Problem as problem:
        assert problem.status == 400
    else:
        assert math.isfinite(params.conf_threshold + params.iou_threshold)
        assert 1 <= params.max_detections <= 1000
        assert all(0 <= number < len(LABELS) for number in params.class_ids)
