"""Class ids that begin at 0 are told from those that begin at 1, or the model is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from inference.core.detection_params import DetectionParams
from inference.core.errors import ModelRefused
from inference.engine.detector import Detector
from inference.models.class_names import COCO_91
from tests.helpers import exporter_outputs
from tests.helpers import model_factory as factory
from tests.helpers.model_factory import DISTINCT, Input, Objects

GREY = np.full((64, 64, 3), 10, np.uint8)
#: The objects of `DISTINCT`, which have the ids 0 and 1, as a model has them that numbers classes from 1.
FROM_ONE: Objects = tuple((*row[:5], row[5] + 1) for row in DISTINCT)
METADATA = {"names": "{0: 'a', 1: 'b', 2: 'c'}"}


def ssd(path: Path, objects: Objects, image: Input = factory.PLAIN) -> Path:
    """Write a model with the outputs of SSD models in public collections, whose boxes are fractions."""
    found = factory.detr_ready(objects, unit=(64, 64))
    outputs = {"bboxes": found["boxes"], "labels": found["labels"], "scores": found["scores"]}
    return factory.constant_model(path, outputs, image)


def end2end(path: Path, objects: Objects, image: Input = factory.PLAIN) -> Path:
    return factory.constant_model(path, {"output0": factory.end2end_rows(objects)}, image)


def yolov7(path: Path, objects: Objects, image: Input = factory.PLAIN) -> Path:
    return exporter_outputs.flat_model(path, exporter_outputs.yolov7_flat(objects), image)


def flat(path: Path, objects: Objects, image: Input = factory.PLAIN) -> Path:
    rows = exporter_outputs.yolo_nas_flat(objects)
    return exporter_outputs.flat_model(path, rows, image, name="flat_rows")


def counted(path: Path, objects: Objects, image: Input = factory.PLAIN) -> Path:
    """Write a model with the outputs of NVIDIA's plugin for suppression (EfficientNMS)."""
    labels, boxes, scores = factory.detr_ready(objects).values()
    count = np.array([[len(objects)]], np.int64)
    outputs = {"num_dets": count, "det_boxes": boxes, "det_scores": scores, "det_classes": labels}
    return factory.constant_model(path, outputs, image)


KINDS: dict[str, Callable[..., Path]] = {
    "SSD": ssd,
    "end to end": end2end,
    "YOLOv7 end to end": yolov7,
    "flat": flat,
    "EfficientNMS": counted,
}


def load(path: Path, manifest: Mapping[str, object] | None = None) -> Detector:
    if manifest is not None:
        path.with_suffix(".json").write_text(json.dumps(manifest))
    return Detector(path, version="v1", device="cpu", batch_max=2)


def names_of(detector: Detector) -> list[str]:
    """Return the names of the objects found in a frame, the best first."""
    raw = detector.infer([GREY] * 2, thread=0)
    return [detector.model.labels[int(row[5])] for row in detector.postprocess(raw, 1, DetectionParams())]


def refusal(path: Path, manifest: Mapping[str, object]) -> str:
    with pytest.raises(ModelRefused) as refused:
        load(path, manifest)
    return str(refused.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_shows_id_0_decides(kind: str, tmp_path: Path) -> None:
    path = KINDS[kind](tmp_path / "m.onnx", DISTINCT)
    assert names_of(load(path, {"labels": ["a", "b", "c"]})) == ["a", "b"]
    text = refusal(path, {"labels": ["a", "b", "c"], "first_class_id": 1})
    assert "class id 0 with a score of 0.90 in a validation run" in text


@pytest.mark.parametrize("kind", KINDS)
def test_ids_that_may_begin_at_0_or_1_are_refused_with_both_readings(kind: str, tmp_path: Path) -> None:
    path = KINDS[kind](tmp_path / "m.onnx", FROM_ONE)
    text = refusal(path, {"labels": ["a", "b", "c"]})
    assert "only the class ids 1, 2 for 3 `labels`" in text
    assert 'ids from 0 to 2 ("a" is 0), or ids from 1 to 3 ("a" is 1)' in text
    assert '"first_class_id": 0 or "first_class_id": 1 in m.json' in text
    assert names_of(load(path, {"labels": ["a", "b", "c"], "first_class_id": 1})) == ["a", "b"]
    assert names_of(load(path, {"labels": ["a", "b", "c"], "first_class_id": 0})) == ["b", "c"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_as_high_as_the_number_of_labels_is_no_proof_either(kind: str, tmp_path: Path) -> None:
    """A label may be missing."""
    path = KINDS[kind](tmp_path / "m.onnx", FROM_ONE)
    text = refusal(path, {"labels": ["a", "b"]})
    assert "ids from 0 that lack a label (0 to 2 need 3), or ids from 1 to 2" in text
    assert names_of(load(path, {"labels": ["a", "b"], "first_class_id": 1})) == ["a", "b"]
    text = refusal(path, {"labels": ["a", "b"], "first_class_id": 0})
    assert "class ids 0 to 1" in text
    assert 'or set "first_class_id": 1' in text
    assert "class ids 0 to 0" in refusal(path, {"labels": ["a"]})


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_without_objects_shows_nothing(kind: str, tmp_path: Path) -> None:
    path = KINDS[kind](tmp_path / "m.onnx", ())
    text = refusal(path, {"labels": ["a", "b"]})
    # Rows without objects do not show the order of their columns, either.
    assert "no object for 2 `labels`" in text or "which may be yolov7-end2end" in text
    family = {"YOLOv7 end to end": "yolov7-end2end", "flat": "yolo-nas"}.get(kind)
    chosen = {"family": family} if family else {}
    assert "no object for 2 `labels`" in refusal(path, {"labels": ["a", "b"], **chosen})
    assert load(path, {"labels": ["a", "b"], "first_class_id": 0, **chosen}).model.labels == ("a", "b")


@pytest.mark.parametrize("kind", KINDS)
def test_without_names_classes_are_called_by_their_ids(kind: str, tmp_path: Path) -> None:
    path = KINDS[kind](tmp_path / "m.onnx", FROM_ONE)
    assert names_of(load(path)) == ["class_1", "class_2"]
    assert names_of(load(path, {"first_class_id": 1})) == ["class_1", "class_2"]


@pytest.mark.parametrize("kind", KINDS)
def test_names_in_the_metadata_have_their_ids(kind: str, tmp_path: Path) -> None:
    path = KINDS[kind](tmp_path / "m.onnx", FROM_ONE, Input(metadata=METADATA))
    assert names_of(load(path)) == ["b", "c"]
    path = KINDS[kind](tmp_path / "n.onnx", FROM_ONE, Input(metadata={"names": "{1: 'a', 2: 'b'}"}))
    assert names_of(load(path)) == ["class_1", "class_2"]  # not all ids have a name, so none is used
    assert 'or set "first_class_id": 1' in refusal(
        KINDS[kind](tmp_path / "o.onnx", FROM_ONE, Input(metadata={"names": "['a', 'b']"})), {}
    )


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["background", "a", "b"], ["a", "b"]),
        (["__background__", "a", "b"], ["a", "b"]),
        ("coco-91", [COCO_91[1], COCO_91[2]]),
    ],
)
def test_a_label_for_the_background_shows_that_ids_begin_at_0(
    labels: object, names: list[str], tmp_path: Path
) -> None:
    assert names_of(load(ssd(tmp_path / "m.onnx", FROM_ONE), {"labels": labels})) == names


def test_the_exporter_of_yolo_nas_numbers_classes_from_0(tmp_path: Path) -> None:
    rows = exporter_outputs.yolo_nas_flat(FROM_ONE)
    path = exporter_outputs.flat_model(tmp_path / "m.onnx", rows, name="graph2_flat_predictions")
    assert names_of(load(path, {"labels": ["a", "b", "c"]})) == ["b", "c"]


def test_a_class_with_hardly_any_score_proves_nothing(tmp_path: Path) -> None:
    """A detr lists its best queries however low they score, so that unused columns may occur."""
    path = ssd(tmp_path / "m.onnx", (*FROM_ONE, (1.0, 1.0, 9.0, 9.0, 0.002, 0)))
    assert "only the class ids 0, 1, 2 for 3 `labels`" in refusal(path, {"labels": ["a", "b", "c"]})


def test_the_field_is_refused_for_models_with_a_column_for_each_class(tmp_path: Path) -> None:
    path = factory.constant_model(tmp_path / "m.onnx", {"o": factory.yolo_rows(DISTINCT, 3)})
    assert "no `first_class_id` in the manifest" in refusal(path, {"first_class_id": 1})
    assert names_of(load(path, {"first_class_id": 0})) == ["class_0", "class_1"]
    assert "a whole number from 0 to 1" in refusal(path, {"first_class_id": 2})
