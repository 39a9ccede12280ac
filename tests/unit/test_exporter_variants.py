"""Outputs whose shapes fit several exporters are read by their values, or refused where these do not help."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from inference.core.detection_params import DetectionParams
from inference.core.errors import ModelRefused
from inference.engine.detector import Detector
from inference.models.model import Family, Placement
from tests.helpers import exporter_outputs
from tests.helpers import model_factory as factory
from tests.helpers.model_factory import DISTINCT, OBJECTS, Input

GREY = np.full((64, 64, 3), 10, np.uint8)
Outputs = Mapping[str, npt.NDArray[Any]]
ROWS = exporter_outputs.dense_rows(OBJECTS, 3)
#: The same with boxes as fractions of the input, as TensorFlow exports have them.
UNIT_ROWS = np.concatenate((ROWS[:, :4] / 64, ROWS[:, 4:]), axis=1)
NAMES = Input(metadata={"names": "{0: 'a', 1: 'b', 2: 'c'}"})
NHWC = Input(channels_last=True)
RANDOM = np.random.default_rng(5)


def load(path: Path, manifest: Mapping[str, object] | None = None) -> Detector:
    if manifest is not None:
        path.with_suffix(".json").write_text(json.dumps(manifest))
    return Detector(path, version="v1", device="cpu", batch_max=2)


def boxes_of(detector: Detector, frame: npt.NDArray[np.uint8] = GREY) -> npt.NDArray[np.float32]:
    raw = detector.infer([frame] * 2, thread=0)
    return detector.postprocess(raw, 1, DetectionParams())


def queries(classes: int = 3) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return logits and boxes of 100 queries of a detr, whose boxes are spread over the image."""
    logits, boxes = factory.detr_logits(DISTINCT, classes, queries=100)
    boxes[0, len(DISTINCT) :] = np.random.default_rng(3).uniform(0.1, 0.8, (100 - len(DISTINCT), 4))
    return logits, boxes


def probabilities(*, background_last: bool) -> npt.NDArray[np.float32]:
    """Return softmax scores [1, 100, 4] of three classes and the background."""
    scores = np.full((1, 100, 3), 0.001, np.float32)
    for query, (*_, score, kind) in enumerate(DISTINCT):
        scores[0, query, kind] = score
    background = 1 - scores.sum(axis=2, keepdims=True)
    return np.concatenate((scores, background) if background_last else (background, scores), axis=2)


def corners_in_unit(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    half = boxes[..., 2:] / 2
    return np.clip(np.concatenate((boxes[..., :2] - half, boxes[..., :2] + half), axis=2), 0, 1)


def ready(*, unit: bool = False, swapped: bool = False) -> Outputs:
    outputs = factory.detr_ready(DISTINCT, queries=30, unit=(64, 64) if unit else None)
    if swapped:
        outputs["boxes"] = outputs["boxes"][..., [1, 0, 3, 2]]
    return outputs


def counted(*, unit: bool = False) -> Outputs:
    """Return the outputs of NVIDIA's plugin for suppression (EfficientNMS)."""
    labels, boxes, scores = ready(unit=unit).values()
    count = np.array([[len(DISTINCT)]], np.int64)
    return {"num_dets": count, "det_boxes": boxes, "det_scores": scores, "det_classes": labels}


def unsuppressed(ids: type[np.generic]) -> Outputs:
    """Return box, best score and class of each grid cell, as models for phones have them."""
    best = ROWS[:, 4:].argmax(axis=1)[None].astype(ids)
    return {
        "boxes": exporter_outputs.corners_of(ROWS)[None],
        "scores": ROWS[None, :, 4:].max(axis=2),
        "class_idx": best,
    }


LOGITS, BOXES = queries()
HIDDEN = RANDOM.normal(0, 1, (1, 100, 256)).astype(np.float32)
REFERENCES = RANDOM.uniform(0, 1, (1, 100, 4)).astype(np.float32)
SERVED: dict[str, tuple[Family, Outputs, Input, Mapping[str, object] | None]] = {
    "YOLOv8 transposed, by its names": (Family.YOLO, {"o": ROWS[None]}, NAMES, None),
    "YOLOv8 transposed, by the manifest": (Family.YOLO, {"o": ROWS[None]}, factory.PLAIN, {"family": "yolo"}),
    "YOLOv8 transposed, by labels": (
        Family.YOLO,
        {"o": ROWS[None]},
        factory.PLAIN,
        {"labels": ["a", "b", "c"]},
    ),
    "YOLOv8 of TensorFlow": (Family.YOLO, {"o": UNIT_ROWS[None]}, NAMES, None),
    "YOLOv8 of TensorFlow, NHWC": (Family.YOLO, {"o": UNIT_ROWS.T[None].copy()}, NHWC, None),
    "YOLOv6": (
        Family.YOLOV5,
        {"o": np.insert(ROWS, 4, 1, axis=1)[None].astype(np.float32)},
        factory.PLAIN,
        {"family": "yolov5"},
    ),
    "boxes that are not suppressed": (Family.YOLO, unsuppressed(np.uint8), factory.PLAIN, None),
    "boxes that are not suppressed, int64": (Family.YOLO, unsuppressed(np.int64), factory.PLAIN, None),
    "EfficientNMS": (Family.YOLO_NAS, counted(), factory.PLAIN, None),
    "EfficientNMS in 0..1": (Family.YOLO_NAS, counted(unit=True), factory.PLAIN, None),
    "detr with hidden states": (
        Family.DETR,
        {"logits": LOGITS, "pred_boxes": BOXES, "last_hidden_state": HIDDEN},
        factory.PLAIN,
        None,
    ),
    "detr with reference points": (
        Family.DETR,
        {"logits": LOGITS, "pred_boxes": BOXES, "init_reference_points": REFERENCES},
        factory.PLAIN,
        None,
    ),
    "detr with softmax in the graph": (
        Family.DETR,
        {"scores": probabilities(background_last=True), "boxes": BOXES},
        factory.PLAIN,
        None,
    ),
    "TensorFlow's order of planes, xyxy by the manifest": (
        Family.DETR,
        ready(unit=True),
        NHWC,
        {"family": "detr"},
    ),
    "fixed batch of 2": (Family.YOLO, {"o": ROWS.T[None].copy()}, Input(batch=2), None),
}


@pytest.mark.parametrize("kind", SERVED)
def test_outputs_are_read_by_their_values(kind: str, tmp_path: Path) -> None:
    family, outputs, image, manifest = SERVED[kind]
    detector = load(factory.constant_model(tmp_path / "m.onnx", outputs, image), manifest)
    assert detector.model.family is family
    assert boxes_of(detector) == pytest.approx(np.array(DISTINCT, np.float32), abs=0.02)


def test_boxes_that_are_not_suppressed_have_the_letterbox_of_a_yolo(tmp_path: Path) -> None:
    model = load(factory.constant_model(tmp_path / "m.onnx", unsuppressed(np.uint8))).model
    assert model.placement is Placement.CENTRED


def test_the_scores_of_all_classes_decide_whether_a_detr_has_a_background(tmp_path: Path) -> None:
    outputs = {"scores": probabilities(background_last=True), "boxes": BOXES}
    path = factory.constant_model(tmp_path / "m.onnx", outputs)
    assert load(path).model.labels == ("class_0", "class_1", "class_2")
    independent = probabilities(background_last=True)
    independent[..., 3] = 0.002
    path = factory.constant_model(tmp_path / "n.onnx", {**outputs, "scores": independent})
    assert len(load(path).model.labels) == 4


@pytest.mark.parametrize("unit", [False, True], ids=["pixels", "fractions"])
@pytest.mark.parametrize("kind", ["counted", "ready", "end2end"])
def test_a_run_that_finds_nothing_does_not_decide_the_unit_of_boxes(
    kind: str, unit: bool, tmp_path: Path
) -> None:
    """Padding of zeros used to make pixels fractions, so that every later box was at the image's edge."""
    outputs: Outputs = counted(unit=unit) if kind == "counted" else ready(unit=unit)
    if kind == "end2end":
        rows = factory.end2end_rows(DISTINCT)
        rows[..., :4] /= 64 if unit else 1
        outputs = {"output0": rows}
    detector = load(exporter_outputs.lit_model(tmp_path / "m.onnx", outputs))
    assert len(boxes_of(detector)) == 0
    white = np.full((64, 64, 3), 255, np.uint8)
    assert boxes_of(detector, white) == pytest.approx(np.array(DISTINCT, np.float32), abs=0.02)


def test_rows_of_all_frames_may_be_fractions(tmp_path: Path) -> None:
    rows = exporter_outputs.yolov7_flat(DISTINCT)
    rows[:, 1:5] /= 64
    detector = load(exporter_outputs.flat_model(tmp_path / "m.onnx", rows))
    assert boxes_of(detector) == pytest.approx(np.array(DISTINCT, np.float32), abs=0.02)


def test_80_classes_of_a_tiny_input_are_served_if_the_manifest_says_so(tmp_path: Path) -> None:
    """The table has fewer grid cells than columns for each."""
    tiny, box = Input(width=32, height=32), (4.0, 4.0, 20.0, 20.0, 0.9, 7)
    rows = exporter_outputs.dense_rows([box], 80, tiny).T[None].copy()
    detector = load(factory.constant_model(tmp_path / "m.onnx", {"o": rows}, tiny), {"family": "yolo"})
    found = boxes_of(detector, np.full((32, 32, 3), 10, np.uint8))
    assert found == pytest.approx(np.array([box], np.float32), abs=0.02)


#: Rows after suppression, in fractions, of a model with one class.
PLAIN_ROWS = np.concatenate(
    (np.sort(RANDOM.uniform(0.05, 0.95, (1, 300, 2, 2)), axis=2).reshape(1, 300, 4), np.zeros((1, 300, 2))),
    axis=2,
).astype(np.float32)
PLAIN_ROWS[..., 4] = RANDOM.uniform(0.01, 0.9, (1, 300))
SPREAD = np.concatenate((BOXES[0], probabilities(background_last=True)[0, :, :1], np.ones((100, 1))), axis=1)
BY_LEVEL = {
    f"head{stride}": np.ones((1, 3, 64 // stride, 64 // stride, 8), np.float32) for stride in (8, 16, 32)
}
REFUSED: dict[str, tuple[Outputs, Input, tuple[str, ...]]] = {
    "YOLOv8 transposed": (
        {"o": ROWS[None]},
        factory.PLAIN,
        (
            "in pixels already",
            '"yolov5" where the fifth number is objectness',
            '"yolo" where the class scores',
        ),
    ),
    "YOLOv8 transposed, in fractions": (
        {"o": UNIT_ROWS[None]},
        factory.PLAIN,
        ("fractions of the input already, and not raw grid offsets", '"yolo" where the class scores'),
    ),
    "class score box in fractions": (
        {"o": PLAIN_ROWS[..., [5, 4, 0, 1, 2, 3]]},
        factory.PLAIN,
        ("class id",),
    ),
    "centres with score and class in fractions": (
        {"o": SPREAD[None].astype(np.float32)},
        factory.PLAIN,
        ("right edge is left", "only whole numbers in column 5, like class ids"),
    ),
    "six rows of 300 boxes": ({"o": PLAIN_ROWS.transpose(0, 2, 1).copy()}, factory.PLAIN, ("300 columns",)),
    "softmax with the background first": (
        {"scores": probabilities(background_last=False), "boxes": BOXES},
        factory.PLAIN,
        ("add up to 1 for each box, but whose last class is not the background",),
    ),
    "corners of an SSD": (
        {"scores": probabilities(background_last=True), "boxes": corners_in_unit(BOXES)},
        factory.PLAIN,
        ("boxes that are corners (x1 y1 x2 y2), and those of a detr are cx cy w h",),
    ),
    "TensorFlow's boxes under other names": (
        ready(unit=True, swapped=True),
        NHWC,
        ("as TensorFlow has both, whose boxes are y1 x1 y2 x2", '`"family": "detr"`'),
    ),
    "centres in fractions for each cell": (
        {"boxes": UNIT_ROWS[None, :, :4].copy(), "scores": UNIT_ROWS[None, :, 4:].copy()},
        factory.PLAIN,
        ("boxes of at most a pixel",),
    ),
    "centres in fractions for each cell, logits": (
        {"boxes": UNIT_ROWS[None, :, :4].copy(), "logits": np.log(UNIT_ROWS[None, :, 4:])},
        factory.PLAIN,
        ("boxes of at most a pixel",),
    ),
    "boxes with their score (MMDetection)": (
        {"dets": factory.end2end_rows(DISTINCT)[..., :5].copy(), "labels": np.zeros((1, 20), np.int64)},
        factory.PLAIN,
        ("It seems to come from MMDetection",),
    ),
    "heads of several grids": (BY_LEVEL, factory.PLAIN, ("raw heads of several grids", "decoding of boxes")),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_outputs_that_would_be_misread_are_refused_with_what_was_found(kind: str, tmp_path: Path) -> None:
    outputs, image, parts = REFUSED[kind]
    path = factory.constant_model(tmp_path / "m.onnx", outputs, image)
    with pytest.raises(ModelRefused) as refusal:
        load(path)
    for part in parts:
        assert part in str(refusal.value)


def test_objectness_is_not_the_score_of_a_class(tmp_path: Path) -> None:
    """In YOLOv6 it is 1 in every row."""
    rows = np.insert(ROWS, 4, 1, axis=1)[None].astype(np.float32)
    path = factory.constant_model(tmp_path / "m.onnx", {"o": rows})
    with pytest.raises(ModelRefused, match="a first score of 1 in every row, which is the objectness"):
        load(path, {"family": "yolo"})
