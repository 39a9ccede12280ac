"""Models with the output shapes of known exporters give the right boxes and names, or are refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from inference.core.detection_params import DetectionParams
from inference.core.errors import ModelRefused
from inference.engine.detector import Detector
from inference.models.class_names import COCO_91, COCO_UNUSED_IDS
from inference.models.model import Family, ModelInfo, Placement
from streamer.model_tools.inspection import inspect_model
from tests.helpers import exporter_outputs
from tests.helpers import model_factory as factory
from tests.helpers.model_factory import DISTINCT, OBJECTS, Input

GREY = np.full((64, 64, 3), 10, np.uint8)
Outputs = Mapping[str, npt.NDArray[Any]]


def load(path: Path, manifest: Mapping[str, object] | None = None) -> Detector:
    if manifest is not None:
        path.with_suffix(".json").write_text(json.dumps(manifest))
    return Detector(path, version="v1", device="cpu", batch_max=2)


def boxes_of(detector: Detector, frames: int = 2) -> list[npt.NDArray[np.float32]]:
    """Return the boxes that the detector finds in each of ``frames`` grey frames."""
    raw = detector.infer([GREY] * frames, thread=0)
    return [detector.postprocess(raw, index, DetectionParams()) for index in range(frames)]


def constant(outputs: Outputs | npt.NDArray[Any], image: Input = factory.PLAIN) -> Callable[[Path], Path]:
    named = outputs if isinstance(outputs, Mapping) else {"output0": outputs}
    return lambda path: factory.constant_model(path, named, image)


def rfdetr(classes: int, *, fill: float = -12.0) -> Outputs:
    """Return outputs of RF-DETR: boxes, and logits where some rows score high for the background."""
    logits, boxes = factory.detr_logits(DISTINCT, classes + 1)
    logits[logits == -12] = fill
    logits[0, 5:9, classes] = 3.0
    return {"dets": boxes, "labels": logits}


def detr(classes: int) -> Outputs:
    """Return outputs of the original DETR; most queries pick "no object", the last class, with softmax."""
    logits, boxes = factory.detr_logits(DISTINCT, classes + 1)
    logits[0, :, classes] = 8.0
    for query, (*_, score, kind) in enumerate(DISTINCT):
        logits[0, query, classes] = 0.0
        logits[0, query, kind] = np.log(score / (1 - score))
    return {"logits": logits, "pred_boxes": boxes}


def coco_logits(detector_of_coco: bool) -> Outputs:
    """Return 91 logits; ids that COCO does not use score lower than all others if ``detector_of_coco``."""
    random = np.random.default_rng(5)
    logits, boxes = factory.detr_logits((), 91)
    logits[:] = random.uniform(-9, -4, logits.shape)
    if detector_of_coco:
        logits[..., list(COCO_UNUSED_IDS)] = -11
    logits[0, 0, 44], boxes[0, 0] = 2.0, (0.5, 0.5, 0.5, 0.25)
    return {"dets": boxes, "labels": logits}


def batched(objects: factory.Objects) -> Outputs:
    """Return the "batch" predictions of YOLO-NAS, padded with -1."""
    ready = factory.detr_ready(objects, queries=10)
    ready["labels"][0, len(objects) :] = -1
    return {
        "graph2_num_predictions": np.array([[len(objects)]], np.int64),
        "graph2_pred_boxes": ready["boxes"],
        "graph2_pred_scores": ready["scores"],
        "graph2_pred_classes": ready["labels"],
    }


def unit_yolo(objects: factory.Objects) -> npt.NDArray[np.float32]:
    rows = factory.yolo_rows(objects, 3)
    rows[:, :4] /= 64
    return rows


def unit_end2end(objects: factory.Objects) -> npt.NDArray[np.float32]:
    rows = factory.end2end_rows(objects)
    rows[..., :4] /= 64
    rows[0, 5] = (0.1, 0.1, 0.2, 0.2, 0.01, 7)  # class 7 shows that the last column holds no scores
    return rows


NHWC = Input(channels_last=True)
BYTES = Input(dtype=np.uint8)
SERVED: dict[str, tuple[Family, Callable[[Path], Path]]] = {
    "Ultralytics RT-DETR, 2 classes": (Family.DETR, constant(exporter_outputs.rtdetr_joined(DISTINCT, 2))),
    "Ultralytics RT-DETR, 80 classes": (Family.DETR, constant(exporter_outputs.rtdetr_joined(DISTINCT, 80))),
    "RF-DETR": (Family.DETR, constant(rfdetr(3))),
    "RF-DETR, 2 classes": (Family.DETR, constant(rfdetr(2))),
    "DETR fine-tuned, softmax": (Family.DETR, constant(detr(3))),
    "YOLO-NAS": (Family.YOLO_NAS, constant(exporter_outputs.yolo_nas_rows(OBJECTS, 3))),
    "YOLO-NAS, uint8": (Family.YOLO_NAS, constant(exporter_outputs.yolo_nas_rows(OBJECTS, 3), BYTES)),
    "YOLO-NAS, batch": (Family.YOLO_NAS, constant(batched(DISTINCT))),
    "YOLO-NAS, flat": (
        Family.YOLO_NAS,
        lambda path: exporter_outputs.flat_model(
            path, exporter_outputs.yolo_nas_flat(DISTINCT), name="graph2_flat_predictions"
        ),
    ),
    "YOLO-NAS, flat, by its values": (
        Family.YOLO_NAS,
        lambda path: exporter_outputs.flat_model(path, exporter_outputs.yolo_nas_flat(DISTINCT)),
    ),
    "YOLOv7 end to end": (
        Family.YOLOV7_END2END,
        lambda path: exporter_outputs.flat_model(path, exporter_outputs.yolov7_flat(DISTINCT)),
    ),
    "YOLOv7 end to end, by its values": (
        Family.YOLOV7_END2END,
        lambda path: exporter_outputs.flat_model(path, exporter_outputs.yolov7_flat(DISTINCT), name="rows"),
    ),
    "boxes in 0..1": (Family.YOLO, constant(unit_yolo(OBJECTS))),
    "end to end in 0..1": (Family.YOLO_END2END, constant(unit_end2end(DISTINCT))),
    "NHWC": (Family.YOLO, constant(factory.yolo_rows(OBJECTS, 3), NHWC)),
    "uint8": (Family.YOLO, constant(factory.yolo_rows(OBJECTS, 3), BYTES)),
    "uint8, NHWC": (
        Family.YOLO,
        constant(factory.yolo_rows(OBJECTS, 3), Input(dtype=np.uint8, channels_last=True)),
    ),
    "one plane": (Family.YOLO, constant(factory.yolo_rows(OBJECTS, 3), Input(planes=1))),
}


@pytest.mark.parametrize("kind", SERVED)
def test_exports_are_recognised_and_give_the_right_boxes(kind: str, tmp_path: Path) -> None:
    family, make = SERVED[kind]
    detector = load(make(tmp_path / "m.onnx"))
    detector.warm_up()
    assert detector.model.family is family
    for found in boxes_of(detector):
        assert found == pytest.approx(np.array(DISTINCT, np.float32), abs=2e-3)


@pytest.mark.parametrize("batch", [1, 3])
def test_rows_of_all_frames_are_told_apart(batch: int, tmp_path: Path) -> None:
    """Only the second frame has objects."""
    rows = exporter_outputs.yolov7_flat(DISTINCT)
    detector = load(exporter_outputs.flat_model(tmp_path / "m.onnx", rows))
    raw = detector.infer([GREY] * 2, thread=0)
    kept = raw.arrays[0][raw.arrays[0][:, 0] == 1]
    raw.arrays = (np.concatenate([kept, np.empty((0, 7), np.float32)]),)
    assert [len(detector.postprocess(raw, index, DetectionParams())) for index in range(2)] == [0, 2]


def test_the_letterbox_of_a_detr_is_not_that_of_a_yolo(tmp_path: Path) -> None:
    rtdetr = load(SERVED["Ultralytics RT-DETR, 2 classes"][1](tmp_path / "m.onnx"))
    assert rtdetr.model.placement is Placement.STRETCH
    assert load(SERVED["YOLO-NAS"][1](tmp_path / "n.onnx")).model.placement is Placement.CENTRED


def test_the_background_of_rf_detr_has_no_name(tmp_path: Path) -> None:
    path = constant(rfdetr(3))(tmp_path / "m.onnx")
    assert load(path).model.labels == ("class_0", "class_1", "class_2")
    remarks = " ".join(inspect_model(path, device="cpu", batch_max=1, timing=False).remarks())
    assert "The last of 4 logits is left out: in exports of RF-DETR it is the background" in remarks
    assert load(path, {"labels": ["a", "b", "c"]}).model.labels == ("a", "b", "c")
    # Four names mean four classes: datasets whose category ids begin at 1 leave the first class unused.
    four = load(path, {"labels": ["unused", "a", "b", "c"]})
    assert four.model.labels == ("unused", "a", "b", "c")
    assert [len(found) for found in boxes_of(four)] == [6, 6]
    with pytest.raises(ModelRefused, match=r"2 classes of its manifest's `labels`; found outputs for 3"):
        load(path, {"labels": ["a", "b"]})


def test_91_logits_are_those_of_coco_only_if_their_values_say_so(tmp_path: Path) -> None:
    coco = load(constant(coco_logits(True))(tmp_path / "m.onnx"))
    assert coco.model.labels == COCO_91
    remarks = inspect_model(tmp_path / "m.onnx", device="cpu", batch_max=1, timing=False).remarks()
    assert "91 classes are COCO's category ids, by their scores in a run" in remarks[0]
    assert COCO_91[int(boxes_of(coco)[0][0, 5])] == "bottle"
    path = constant(coco_logits(False))(tmp_path / "n.onnx")
    with pytest.raises(ModelRefused) as refusal:
        load(path)
    for part in (
        "the 91 category ids of COCO",
        "90 classes of another data set",
        '"labels": "coco-91"',
        "n.json",
    ):
        assert part in str(refusal.value)
    assert load(path, {"labels": "coco-91"}).model.labels == COCO_91
    mine = [f"part {number}" for number in range(90)]
    assert load(path, {"labels": mine}).model.labels == tuple(mine)


def test_rows_of_six_fractions_are_corners_with_a_class_if_their_last_column_has_whole_numbers(
    tmp_path: Path,
) -> None:
    """They could also be centre and size of a box with two scores, but scores are not always 0 or 1."""
    rows = np.tile(np.array((0.125, 0.25, 0.5, 0.75, 0.9, 1), np.float32), (1, 20, 1))
    path = constant(rows)(tmp_path / "m.onnx")
    corners = boxes_of(load(path))[0]
    assert corners[0] == pytest.approx(np.array([8, 16, 32, 48, 0.9, 1], np.float32))
    with pytest.raises(ModelRefused, match="boxes that are corners"):
        load(path, {"family": "detr"})
    rows[0, ::3, :4] = (0.75, 0.5, 0.125, 0.25)  # narrow boxes at the right, as centre and size
    path = constant(rows)(tmp_path / "n.onnx")
    with pytest.raises(ModelRefused, match="only whole numbers in column 5, like class ids"):
        load(path)


def test_empty_rows_of_all_frames_with_an_unknown_name_are_refused_with_both_orders(tmp_path: Path) -> None:
    path = exporter_outputs.flat_model(tmp_path / "m.onnx", np.empty((0, 7), np.float32), name="rows")
    with pytest.raises(ModelRefused) as refusal:
        load(path)
    for part in ("class score in each row", "score class in each row", "yolov7-end2end", "yolo-nas"):
        assert part in str(refusal.value)
    assert load(path, {"family": "yolov7-end2end"}).model.family is Family.YOLOV7_END2END


def test_suppression_across_classes_is_the_default_of_a_manifest_that_says_so(tmp_path: Path) -> None:
    objects = (OBJECTS[0], (*OBJECTS[1][:5], 2))  # two overlapping boxes of different classes
    path = constant(factory.yolo_rows(objects, 3))(tmp_path / "m.onnx")
    detector = load(path)
    raw = detector.infer([GREY], thread=0)
    assert len(detector.postprocess(raw, 0, detector.model.default_params)) == 2
    assert len(detector.postprocess(raw, 0, DetectionParams(agnostic_nms=True))) == 1
    across = load(path, {"agnostic_nms": True})
    raw = across.infer([GREY], thread=0)
    assert len(across.postprocess(raw, 0, across.model.default_params)) == 1
    assert ModelInfo.from_dict(across.model.to_dict()) == across.model


def test_duplicate_names_are_numbered_apart(tmp_path: Path) -> None:
    image = Input(metadata={"names": "{0: 'car', 1: 'car', 2: ''}"})
    path = constant(factory.yolo_rows(OBJECTS, 3), image)(tmp_path / "m.onnx")
    assert load(path).model.labels == ("car", "car_2", "class_2")
    remarks = " ".join(inspect_model(path, device="cpu", batch_max=1, timing=False).remarks())
    assert "The metadata names several classes 'car'; they are numbered apart" in remarks
    mine = ["car", "van", "car"]
    assert load(path, {"labels": mine}).model.labels == ("car", "van", "car_2")
    remarks = " ".join(inspect_model(path, device="cpu", batch_max=1, timing=False).remarks())
    assert "The manifest names several classes 'car'; they are numbered apart" in remarks
    taken = Input(metadata={"names": "['car', 'car', 'car_2']"})
    path = constant(factory.yolo_rows(OBJECTS, 3), taken)(tmp_path / "n.onnx")
    assert load(path).model.labels == ("car", "car_3", "car_2")
