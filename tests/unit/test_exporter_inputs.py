"""Inputs of known exporters are filled as they want them, and models of other tasks are refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from inference.core.detection_params import DetectionParams
from inference.core.errors import ModelRefused
from inference.engine.detector import Detector
from tests.helpers import exporter_outputs
from tests.helpers import model_factory as factory
from tests.helpers.model_factory import DISTINCT, OBJECTS, Input

CELLS = len(factory.cells(factory.PLAIN))


Outputs = Mapping[str, npt.NDArray[Any]]


def load(path: Path, manifest: Mapping[str, object] | None = None) -> Detector:
    if manifest is not None:
        path.with_suffix(".json").write_text(json.dumps(manifest))
    return Detector(path, version="v1", device="cpu", batch_max=2)


def constant(outputs: Outputs | npt.NDArray[Any], image: Input = factory.PLAIN) -> Callable[[Path], Path]:
    named = outputs if isinstance(outputs, Mapping) else {"output0": outputs}
    return lambda path: factory.constant_model(path, named, image)


def rfdetr(classes: int, *, fill: float = -12.0) -> Outputs:
    """Return outputs of RF-DETR: boxes, and logits where some rows score high for the background."""
    logits, boxes = factory.detr_logits(DISTINCT, classes + 1)
    logits[logits == -12] = fill
    logits[0, 5:9, classes] = 3.0
    return {"dets": boxes, "labels": logits}


NHWC = Input(channels_last=True)


BYTES = Input(dtype=np.uint8)


def pose(kind: str) -> Outputs:
    random = np.random.default_rng(1)
    rows = random.uniform(0, 0.1, (1, 56, CELLS)).astype(np.float32)
    rows[:, :4] *= 640
    rows[:, 5:] = random.uniform(0, 640, (1, 51, CELLS))
    if kind == "end2end":
        return {
            "output0": np.concatenate(
                (factory.end2end_rows(DISTINCT), rows[:, 5:, :20].transpose(0, 2, 1)), 2
            )
        }
    return {"output0": rows}


def in_unit(first: int, columns: int) -> Outputs:
    """Return numbers of 0 to 0.9 from the column ``first`` on, as angles and keypoints may happen to be."""
    rows = factory.yolo_rows(DISTINCT, columns - 4)
    rows[:, first:] = np.random.default_rng(3).uniform(0, 0.9, (1, columns - first, CELLS))
    return {"output0": rows}


def oriented(kind: str) -> Outputs:
    rows = factory.yolo_rows(DISTINCT, 3)
    rows[:, 6] = np.linspace(-0.7, 2.3, CELLS)
    if kind == "end2end":
        angles = np.full((1, 20, 1), 0.3, np.float32)
        return {"output0": np.concatenate((factory.end2end_rows(DISTINCT), angles), 2)}
    return {"output0": rows}


def segmented(rows: npt.NDArray[np.float32], axis: int) -> Outputs:
    shape = list(rows.shape)
    shape[axis] = 32
    masks = np.random.default_rng(2).uniform(-0.9, 0.9, shape).astype(np.float32)
    return {"output0": np.concatenate((rows, masks), axis), "output1": np.zeros((1, 32, 16, 16), np.float32)}


TENSORFLOW = {
    "detection_boxes": factory.detr_ready(DISTINCT, unit=(64, 64))["boxes"],
    "detection_classes": np.ones((1, 20), np.float32),
    "detection_scores": np.full((1, 20), 0.5, np.float32),
    "num_detections": np.ones((1, 1), np.float32),
}


LOGITS_AS_SCORES = factory.yolo_rows(DISTINCT, 3) * np.float32(1)


LOGITS_AS_SCORES[:, 4:] = -5.0


REFUSED: dict[str, tuple[Outputs, tuple[str, ...]]] = {
    "pose": (pose("dense"), ("yolo (52 class scores", "keypoints of a pose model", "`detect` model")),
    "pose, end to end": (pose("end2end"), ("57 columns", "keypoints (pose)")),
    "oriented boxes": (oriented("dense"), ("an angle, perhaps that of an oriented-box (OBB) model",)),
    "oriented boxes, end to end": (oriented("end2end"), ("7 columns", "oriented boxes")),
    "oriented boxes, with angles like scores": (in_unit(7, 8), ("number 7 of 8", "oriented-box (OBB) model")),
    "pose, in fractions": (in_unit(5, 56), ("no class is everywhere (number 5 of 56)", "keypoints")),
    "raw scores of YOLO-NAS's shape": (
        {
            "boxes": exporter_outputs.yolo_nas_rows(DISTINCT, 3)["boxes"],
            "scores": in_unit(4, 7)["output0"][:, 4:].transpose(0, 2, 1).copy(),
        },
        ("no class is everywhere (number 0 of 3)",),
    ),
    "masks": (segmented(factory.yolo_rows(DISTINCT, 2), 1), ("holds masks: this is a segmentation model",)),
    "masks of yolov5": (segmented(factory.yolov5_rows(DISTINCT, 2), 2), ("holds masks",)),
    "masks, end to end": (segmented(factory.end2end_rows(DISTINCT), 2), ("holds masks",)),
    "masks of RF-DETR": (
        {**rfdetr(3), "masks": np.zeros((1, 20, 16, 16), np.float32)},
        ("holds masks", "RF-DETR: export it as `model.export()`"),
    ),
    "logits instead of scores": ({"o": LOGITS_AS_SCORES}, ("-5", "perhaps logits")),
    "corners the wrong way round": (
        {
            "boxes": -exporter_outputs.yolo_nas_rows(DISTINCT, 3)["boxes"],
            "scores": np.zeros((1, CELLS, 3), np.float32),
        },
        ("right edge is left of the left one",),
    ),
    "ids that are no ids": (
        {**factory.detr_ready(DISTINCT), "labels": np.full((1, 20), 0.5, np.float32)},
        ("class id 0.5",),
    ),
    "a classifier": ({"o": np.zeros((1, 1000), np.float32)}, ("perhaps a classifier",)),
    "TensorFlow": (TENSORFLOW, ("y1 x1 y2 x2", "TensorFlow")),
    "TensorFlow, with numbers": (
        {f"{name}:0": array for name, array in TENSORFLOW.items()},
        ("y1 x1 y2 x2", "TensorFlow"),
    ),
    "TensorFlow, in a part of the graph": (
        {f"Postprocessor/{name}": array for name, array in TENSORFLOW.items()},
        ("y1 x1 y2 x2", "TensorFlow"),
    ),
    "torchvision": (
        {
            "boxes": np.zeros((5, 4), np.float32),
            "labels": np.ones(5, np.int64),
            "scores": np.ones(5, np.float32),
        },
        ("It seems to come from torchvision, whose exports the service does not read",),
    ),
    "PaddlePaddle": (
        {
            "multiclass_nms3_0.tmp_0": np.ones((5, 6), np.float32),
            "multiclass_nms3_0.tmp_2": np.ones(1, np.int64),
        },
        ("It seems to come from PaddlePaddle",),
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_models_of_other_tasks_are_refused_with_a_clear_sentence(kind: str, tmp_path: Path) -> None:
    outputs, parts = REFUSED[kind]
    path = constant(outputs)(tmp_path / "m.onnx")
    with pytest.raises(ModelRefused) as refusal:
        load(path)
    for part in parts:
        assert part in str(refusal.value)


def test_a_family_in_the_manifest_does_not_make_keypoints_scores(tmp_path: Path) -> None:
    path = constant(pose("dense"))(tmp_path / "m.onnx")
    with pytest.raises(ModelRefused, match="keypoints of a pose model"):
        load(path, {"family": "yolo"})


def colour_scores(detector: Detector, frame: npt.NDArray[np.uint8]) -> list[float]:
    found = detector.postprocess(
        detector.infer([frame], thread=0), 0, DetectionParams(conf_threshold=0.0, iou_threshold=1.0)
    )
    return [round(float(found[found[:, 5] == kind, 4].max(initial=0)), 3) for kind in range(3)]


def test_channels_last_are_rgb_in_0_to_1(tmp_path: Path) -> None:
    detector = load(factory.colour_model(tmp_path / "m.onnx", NHWC))
    frame = np.full((64, 64, 3), (51, 102, 204), np.uint8)
    assert colour_scores(detector, frame) == [0.8, 0, 0]
    assert colour_scores(detector, frame[..., ::-1]) == [0, 0, 0.8]


def test_one_plane_holds_the_luma(tmp_path: Path) -> None:
    detector = load(factory.colour_model(tmp_path / "m.onnx", Input(planes=1)))
    for colour, luma in (((255, 0, 0), 0.114), ((0, 255, 0), 0.588), ((0, 0, 255), 0.298)):
        scores = colour_scores(detector, np.full((64, 64, 3), colour, np.uint8))
        assert scores[0] == pytest.approx(luma, abs=2e-3)
    half = load(tmp_path / "m.onnx", {"scale": 1 / 255, "mean": [0], "std": [2]})
    assert colour_scores(half, np.full((64, 64, 3), 255, np.uint8))[0] == pytest.approx(0.5)


def test_bytes_enter_as_they_are(tmp_path: Path) -> None:
    path = factory.colour_model(tmp_path / "m.onnx", BYTES)
    assert colour_scores(load(path), np.full((64, 64, 3), (51, 102, 204), np.uint8)) == [0.8, 0, 0]


@pytest.mark.parametrize(
    ("image", "manifest", "text"),
    [
        (BYTES, {"scale": 1}, "no `scale` in the manifest, because the input is uint8"),
        (BYTES, {"mean": [1]}, "Remove `mean`"),
        (Input(planes=1), {"colour": "bgr"}, '"bgr" for an input of 1'),
        (Input(planes=1), {"mean": [1, 2, 3]}, "one mean and one standard deviation"),
        (factory.PLAIN, {"colour": "grey"}, '"grey" for an input of 3'),
    ],
)
def test_a_manifest_that_contradicts_the_input_is_refused(
    image: Input, manifest: dict[str, object], text: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelRefused, match=text):
        load(constant(factory.yolo_rows(OBJECTS, 3), image)(tmp_path / "m.onnx"), manifest)


@pytest.mark.parametrize(
    ("change", "newest", "found"),
    [
        (lambda model: setattr(model, "ir_version", 99), r"IR version \d+ at most", "found IR version 99"),
        (
            lambda model: setattr(model.opset_import[0], "version", 99),
            r"opset \d+ at most for domain ai.onnx",
            "found opset 99",
        ),
    ],
)
def test_a_file_that_is_too_new_names_the_newest_version(
    change: Callable[[Any], None], newest: str, found: str, tmp_path: Path
) -> None:
    path = constant(factory.yolo_rows(OBJECTS, 3))(tmp_path / "m.onnx")
    model = onnx.load(str(path))
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelRefused, match=f"{newest}, the newest that this onnxruntime reads; {found}"):
        load(path)


def test_fractions_of_a_converter_for_tensorflow_are_refused(tmp_path: Path) -> None:
    """Its boxes are y1 x1 y2 x2, also where the planes of the input come first."""
    path = constant(factory.detr_ready(DISTINCT, unit=(64, 64)))(tmp_path / "m.onnx")
    load(path)
    model = onnx.load(str(path))
    model.producer_name = "tf2onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelRefused, match="as TensorFlow has both, whose boxes are y1 x1 y2 x2"):
        load(path)
    load(path, {"family": "detr"})


def test_a_class_that_is_everywhere_is_one_if_the_manifest_says_so(tmp_path: Path) -> None:
    path = constant(in_unit(5, 6))(tmp_path / "m.onnx")
    with pytest.raises(ModelRefused, match='If they are scores, set `"family": "yolo"` in the manifest'):
        load(path)
    assert load(path, {"family": "yolo"}).model.labels == ("class_0", "class_1")
