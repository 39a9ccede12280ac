"""Models with several heads of one shape are read as the manifest says, or refused with the heads' names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from inference.core.detection_params import DetectionParams
from inference.core.errors import ModelRefused
from inference.engine.detector import Detector
from tests.helpers import exporter_outputs
from tests.helpers import model_factory as factory
from tests.helpers.model_factory import DISTINCT, Objects

#: What an auxiliary head finds: the same objects, less exactly and with lower scores.
ROUGH: Objects = tuple(
    (x1 + 3, y1 + 2, x2 + 4, y2 - 3, score - 0.2, kind) for x1, y1, x2, y2, score, kind in DISTINCT
)
SHAPES: dict[str, Callable[[Objects], npt.NDArray[np.float32]]] = {
    "yolo": lambda objects: exporter_outputs.dense_rows(objects, 3).T[None].copy(),
    "yolov5": lambda objects: factory.yolov5_rows(objects, 3),
    "yolox": lambda objects: factory.yolox_rows(objects, 3),
    "end to end": factory.end2end_rows,
    "joined": lambda objects: exporter_outputs.rtdetr_joined(objects, 3),
}


def load(path: Path, manifest: Mapping[str, object] | None = None) -> Detector:
    if manifest is not None:
        path.with_suffix(".json").write_text(json.dumps(manifest))
    return Detector(path, version="v1", device="cpu", batch_max=2)


def boxes_of(detector: Detector) -> npt.NDArray[np.float32]:
    raw = detector.infer([np.full((64, 64, 3), 10, np.uint8)] * 2, thread=0)
    return detector.postprocess(raw, 1, DetectionParams())


@pytest.mark.parametrize("main_first", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_manifest_decides_which_head_is_the_main_one(
    shape: str, main_first: bool, tmp_path: Path
) -> None:
    """YOLOv9's repository exports the auxiliary head first; shapes and values do not show it."""
    main, auxiliary = SHAPES[shape](DISTINCT), SHAPES[shape](ROUGH)
    first, second = (main, auxiliary) if main_first else (auxiliary, main)
    path = factory.constant_model(tmp_path / "m.onnx", {"output0": first, "1904": second})
    with pytest.raises(ModelRefused) as refused:
        load(path)
    for part in ("heads of one shape", '`"output": "output0"` or `"output": "1904"`', "m.json"):
        assert part in str(refused.value)
    name = "output0" if main_first else "1904"
    found = boxes_of(load(path, {"output": name}))
    assert found == pytest.approx(np.array(DISTINCT, np.float32), abs=0.02)
    rough = boxes_of(load(path, {"output": "1904" if main_first else "output0"}))
    assert rough == pytest.approx(np.array(ROUGH, np.float32), abs=0.02)


def test_three_heads_are_named(tmp_path: Path) -> None:
    heads = {
        name: SHAPES["yolo"](DISTINCT) * np.float32(share)
        for name, share in zip("abc", (1, 0.9, 0.8), strict=True)
    }
    with pytest.raises(ModelRefused, match=r'"output": "a"` or `"output": "b"` or `"output": "c"'):
        load(factory.constant_model(tmp_path / "m.onnx", heads))


def test_copies_of_one_head_are_one(tmp_path: Path) -> None:
    rows = SHAPES["yolo"](DISTINCT)
    path = factory.constant_model(tmp_path / "m.onnx", {"a": rows, "b": rows.copy()})
    assert boxes_of(load(path)) == pytest.approx(np.array(DISTINCT, np.float32), abs=0.02)


def test_a_head_whose_values_are_no_scores_is_none(tmp_path: Path) -> None:
    rows = SHAPES["yolo"](DISTINCT)
    logits = rows.copy()
    logits[:, 4:] = np.log(rows[:, 4:])
    path = factory.constant_model(tmp_path / "m.onnx", {"logits": logits, "scores": rows})
    assert boxes_of(load(path)) == pytest.approx(np.array(DISTINCT, np.float32), abs=0.02)


def test_an_output_that_is_missing_is_named(tmp_path: Path) -> None:
    path = factory.constant_model(tmp_path / "m.onnx", {"a": SHAPES["yolo"](DISTINCT)})
    with pytest.raises(
        ModelRefused, match=r"`output` in the manifest to name outputs of the model; found `b`.*`a` "
    ):
        load(path, {"output": "b"})


def test_auxiliary_heads_of_a_detr_are_told_from_the_last_by_the_names_of_hugging_face(
    tmp_path: Path,
) -> None:
    logits, boxes = factory.detr_logits(DISTINCT, 3, queries=50)
    other_logits, other_boxes = factory.detr_logits(ROUGH, 3, queries=50)
    outputs = {"enc_boxes": other_boxes, "enc_logits": other_logits, "logits": logits, "pred_boxes": boxes}
    path = factory.constant_model(tmp_path / "m.onnx", outputs)
    assert boxes_of(load(path)) == pytest.approx(np.array(DISTINCT, np.float32), abs=0.02)
    renamed = dict(zip(("b1", "logits1", "logits2", "b2"), outputs.values(), strict=True))
    path = factory.constant_model(tmp_path / "n.onnx", renamed)
    with pytest.raises(ModelRefused, match=r'"output": \["logits2", "b2"\]'):
        load(path)
    chosen = load(path, {"output": ["logits2", "b2"]})
    assert boxes_of(chosen) == pytest.approx(np.array(DISTINCT, np.float32), abs=0.02)


def test_several_outputs_with_scores_are_told_apart_by_the_manifest(tmp_path: Path) -> None:
    outputs = factory.detr_ready(DISTINCT)
    outputs = {"quality": outputs["scores"] * np.float32(0.5), **outputs}
    path = factory.constant_model(tmp_path / "m.onnx", outputs)
    with pytest.raises(ModelRefused, match=r'"output": \["labels", "boxes", "scores"\]'):
        load(path)
    chosen = load(path, {"output": ["labels", "boxes", "scores"]})
    assert boxes_of(chosen) == pytest.approx(np.array(DISTINCT, np.float32), abs=0.02)
    with pytest.raises(ModelRefused, match="the name of an output, or a list of 1 to 4 of them"):
        load(path, {"output": []})
