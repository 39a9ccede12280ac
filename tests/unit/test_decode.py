"""Postprocessing gives back boxes that the tests encoded in the output format of each family."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.core.detection_params import DetectionParams
from inference.models.layout import CONVENTIONS, Layout, OutputForm
from inference.models.manifest import Activation
from inference.models.model import Family
from inference.postprocess.boxes import MAX_CANDIDATES, Postprocessor
from tests.helpers import exporter_outputs
from tests.helpers import model_factory as factory
from tests.helpers.model_factory import DISTINCT, OBJECTS, Input, Objects

IMAGE = Input(width=96, height=64)
CLASSES = 3


def layout(family: Family, **changes: Any) -> Layout:
    strides = factory.STRIDES if family is Family.YOLOX else ()
    return replace(Layout(family, ("a", "b", "c"), CLASSES, CONVENTIONS[family], strides=strides), **changes)


def decoder(family: Family, **changes: Any) -> Postprocessor:
    return Postprocessor(layout(family, **changes), IMAGE.width, IMAGE.height, CLASSES)


def encoded(family: Family, objects: Objects) -> tuple[Postprocessor, list[np.ndarray]]:
    """Return a postprocessor and outputs for one frame that encode ``objects``."""
    if family is Family.DETR:
        logits, boxes = factory.detr_logits(objects, CLASSES, IMAGE)
        return decoder(family, form=OutputForm.LOGITS), [logits[0], boxes[0]]
    if family is Family.YOLO_NAS:
        return decoder(family, form=OutputForm.SPLIT), [
            array[0] for array in exporter_outputs.yolo_nas_rows(objects, CLASSES, IMAGE).values()
        ]
    if family is Family.YOLOV7_END2END:
        return decoder(family, form=OutputForm.FLAT), [exporter_outputs.yolov7_flat(objects)]
    rows = {
        Family.YOLO: lambda: factory.yolo_rows(objects, CLASSES, IMAGE),
        Family.YOLOV5: lambda: factory.yolov5_rows(objects, CLASSES, IMAGE),
        Family.YOLOX: lambda: factory.yolox_rows(objects, CLASSES, IMAGE),
        Family.YOLO_END2END: lambda: factory.end2end_rows(objects),
    }[family]()
    return decoder(family), [rows[0]]


def by_score(boxes: np.ndarray) -> np.ndarray:
    return boxes[np.argsort(-boxes[:, 4])]


def expected(objects: Objects) -> Any:
    return pytest.approx(by_score(np.array(objects, np.float32)), abs=1e-3)


@pytest.mark.parametrize("family", Family)
def test_every_family_gives_back_the_boxes_that_were_encoded(family: Family) -> None:
    decode, outputs = encoded(family, OBJECTS)
    assert by_score(decode.candidates(outputs, DetectionParams())) == expected(OBJECTS)


@pytest.mark.parametrize("family", Family)
def test_every_family_reads_half_precision(family: Family) -> None:
    decode, outputs = encoded(family, DISTINCT)
    found = decode.candidates([output.astype(np.float16) for output in outputs], DetectionParams())
    assert found.dtype == np.float32
    assert by_score(found) == pytest.approx(by_score(np.array(DISTINCT, np.float32)), abs=0.1)


@pytest.mark.parametrize("family", Family)
def test_the_threshold_is_the_lowest_score_that_stays(family: Family) -> None:
    decode, outputs = encoded(family, DISTINCT)
    assert len(decode.candidates(outputs, DetectionParams(conf_threshold=0.7499))) == 2
    assert len(decode.candidates(outputs, DetectionParams(conf_threshold=0.7501))) == 1
    assert len(decode.candidates(outputs, DetectionParams(conf_threshold=0.95))) == 0


@pytest.mark.parametrize("family", Family)
def test_the_class_filter_keeps_only_its_classes(family: Family) -> None:
    decode, outputs = encoded(family, OBJECTS)
    found = decode.candidates(outputs, DetectionParams(class_ids=(1, 2)))
    assert found[:, 5].tolist() == [1]


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_are_left_out(family: Family, value: float) -> None:
    decode, outputs = encoded(family, DISTINCT)
    boxes = outputs[-1]
    if family is Family.YOLO_NAS:
        outputs[0][2, 1] = value
    elif family is Family.YOLO:
        boxes[2, 3] = value
    elif family is Family.YOLOV5:
        boxes[5, 2] = value
    elif family is Family.YOLOX:
        boxes[2, 2] = value
    else:
        boxes[0, 2] = value
    if family is Family.YOLOX and value == -np.inf:  # exp(-inf) is 0; a box of width 0 is left out
        assert len(decode.candidates(outputs, DetectionParams())) == 1
    assert by_score(decode.candidates(outputs, DetectionParams())) == expected(DISTINCT[1:])


@pytest.mark.parametrize("family", [Family.YOLO, Family.YOLOX, Family.YOLOV5, Family.YOLO_END2END])
def test_scores_that_are_not_finite_are_left_out(family: Family) -> None:
    decode, outputs = encoded(family, ())
    outputs[0][...] = np.nan
    assert len(decode.candidates(outputs, DetectionParams(conf_threshold=0.0))) == 0


def test_a_yolox_offset_too_wild_for_exp_is_left_out_silently() -> None:
    decode, outputs = encoded(Family.YOLOX, DISTINCT)
    outputs[0][2, 2] = 1e30
    assert by_score(decode.candidates(outputs, DetectionParams())) == expected(DISTINCT[1:])


def test_a_row_has_the_class_of_its_best_score_only() -> None:
    decode, outputs = encoded(Family.YOLO, OBJECTS[:1])
    outputs[0][4 + 2, 3] = 0.8  # the same box scores a little lower for another class
    assert decode.candidates(outputs, DetectionParams())[:, 5].tolist() == [0]
    assert len(decode.candidates(outputs, DetectionParams(class_ids=(2,)))) == 0


def test_ready_boxes_of_a_detr_come_in_pixels_or_in_0_to_1() -> None:
    for unit in (None, (IMAGE.width, IMAGE.height)):
        arrays = factory.detr_ready(DISTINCT, unit=unit)
        outputs = [arrays[name][0] for name in ("labels", "boxes", "scores")]
        decode = decoder(Family.DETR, form=OutputForm.READY, normalised=unit is not None)
        assert by_score(decode.candidates(outputs, DetectionParams())) == expected(DISTINCT)


def test_class_ids_without_a_label_are_left_out() -> None:
    arrays = factory.detr_ready((*DISTINCT, (0, 0, 9, 9, 0.8, CLASSES), (0, 0, 9, 9, 0.8, -1)))
    outputs = [arrays[name][0] for name in ("labels", "boxes", "scores")]
    found = decoder(Family.DETR, form=OutputForm.READY).candidates(outputs, DetectionParams())
    assert by_score(found) == expected(DISTINCT)


def test_softmax_ignores_the_class_that_means_no_object() -> None:
    logits = np.full((4, CLASSES + 1), 0.0, np.float32)
    logits[:, CLASSES] = 9.0
    logits[1] = (0.0, 8.0, 0.0, 0.0)
    boxes = np.tile(np.array([0.5, 0.5, 0.25, 0.5], np.float32), (4, 1))
    found = decoder(Family.DETR, form=OutputForm.LOGITS, activation=Activation.SOFTMAX).candidates(
        [logits, boxes], DetectionParams()
    )
    score = np.exp(8) / (np.exp(8) + 3)
    assert found == pytest.approx(np.array([[36, 16, 60, 48, score, 1]]), abs=1e-3)


def test_a_query_may_name_several_classes() -> None:
    logits, boxes = factory.detr_logits(DISTINCT, CLASSES, IMAGE)
    logits[0, 0, 2] = 1.0
    found = decoder(Family.DETR, form=OutputForm.LOGITS).candidates([logits[0], boxes[0]], DetectionParams())
    assert sorted(found[:, 5].tolist()) == [0, 1, 2]


@pytest.mark.parametrize("family", [Family.YOLO, Family.YOLOV5, Family.YOLOX])
def test_candidates_are_capped_and_the_best_stay(family: Family) -> None:
    random = np.random.default_rng(3)
    big = Input(width=640, height=640)
    count = len(factory.cells(big)) * (3 if family is Family.YOLOV5 else 1)
    scores = random.permutation(count).astype(np.float32) / count
    rows = np.zeros((count, 6 if family is not Family.YOLO else 5), np.float32)
    rows[:, :4] = 0.5, 0.5, 2, 2
    rows[:, 4] = scores
    if family is not Family.YOLO:
        rows[:, 5] = 1
    decode = Postprocessor(layout(family), 640, 640, 1)
    output = rows.T if family is Family.YOLO else rows
    found = decode.candidates([output], DetectionParams(conf_threshold=0.0))
    assert sorted(found[:, 4].tolist()) == sorted(scores.tolist())[-MAX_CANDIDATES:]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(Family), st.integers(0, 1 << 30), st.sampled_from([0.0, 0.25, 1.0]))
def test_any_numbers_give_sound_boxes(family: Family, seed: int, threshold: float) -> None:
    """Whatever a model outputs, each box that comes out is finite, has an area and has a known class."""
    random = np.random.default_rng(seed)
    decode, outputs = encoded(family, ())
    wild = np.array([np.nan, np.inf, -np.inf, 1e38, -1e38, 0, 0.5, 1, -1], np.float32)
    for output in outputs:
        output[...] = np.where(
            random.random(output.shape) < 0.1,
            random.choice(wild, output.shape),
            random.normal(0, 3, output.shape),
        )
    found = decode.candidates(outputs, DetectionParams(conf_threshold=threshold))
    assert np.isfinite(found).all()
    assert (found[:, 2] > found[:, 0]).all()
    assert (found[:, 3] > found[:, 1]).all()
    assert (found[:, 4] >= np.float32(threshold) - 1e-6).all()
    assert set(found[:, 5].tolist()) <= {0.0, 1.0, 2.0}
