"""Models with the output shapes of known exporters give the right boxes and names, or are refused."""

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
from inference.models.class_names import COCO_91, COCO_UNUSED_IDS
from inference.models.model import Family, ModelInfo, Placement
from streamer.model_tools.inspection import inspect_model
from tests.helpers import exporter_outputs
from tests.helpers import model_factory as factory
from tests.helpers.model_factory import DISTINCT, OBJECTS, Input

GREY = np.full((64, 64, 3), 10, np.uint8)
CELLS = len(factory.cells(factory.PLAIN))
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


def test_ambiguous_rows_are_refused_until_the_manifest_decides(tmp_path: Path) -> None:
    rows = np.zeros((1, 20, 6), np.float32)
    rows[0, 0] = (0.125, 0.25, 0.5, 0.75, 0.9, 1)  # either corners, score, class 1; or a box, two scores
    path = constant(rows)(tmp_path / "m.onnx")
    with pytest.raises(ModelRefused) as refusal:
        load(path)
    for part in (
        "x1 y1 x2 y2 score class in each row",
        "cx cy w h as fractions of the input, then 2 class scores",
        '`"family": "yolo-end2end"` or `"family": "detr"` in m.json',
    ):
        assert part in str(refusal.value)
    corners = boxes_of(load(path, {"family": "yolo-end2end"}))[0]
    assert corners == pytest.approx(np.array([[8, 16, 32, 48, 0.9, 1]], np.float32))
    centres = boxes_of(load(path, {"family": "detr"}))[0]
    assert centres[:, 5].tolist() == [1, 0]
    assert centres[0] == pytest.approx(np.array([-8, -8, 24, 40, 1, 1], np.float32))


def test_empty_rows_of_all_frames_with_an_unknown_name_are_refused_with_both_orders(tmp_path: Path) -> None:
    path = exporter_outputs.flat_model(tmp_path / "m.onnx", np.empty((0, 7), np.float32), name="rows")
    with pytest.raises(ModelRefused) as refusal:
        load(path)
    for part in ("class score in each row", "score class in each row", "yolov7-end2end", "yolo-nas"):
        assert part in str(refusal.value)
    assert load(path, {"family": "yolov7-end2end"}).model.family is Family.YOLOV7_END2END


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
