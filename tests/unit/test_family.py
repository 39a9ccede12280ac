"""Probing derives family, size and labels from the shapes, names and metadata of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from inference.core.errors import ModelRefused
from inference.models.class_names import COCO_80, COCO_91, parse_names
from inference.models.family import recognise
from inference.models.labels import UNKNOWN_COUNT, check_ids, choose_labels
from inference.models.layout import CONVENTIONS, Layout, OutputForm, Probe, anchor_count
from inference.models.manifest import Activation, Colour, Manifest
from inference.models.model import Family, Placement
from inference.models.signature import Graph, Tensor, image_input

CELLS = anchor_count(640, 640, (8, 16, 32))


def recognised(
    outputs: Mapping[str, tuple[int, ...]],
    *,
    size: tuple[int, int] = (640, 640),
    manifest: Manifest = Manifest(),  # noqa: B008 - frozen
    metadata: dict[str, str] | None = None,
    fill: float = 0.0,  # value of the first four columns
    sizes: bool = False,
) -> Layout:
    arrays: dict[str, np.ndarray[Any, Any]] = {
        name: np.zeros(shape, np.float32) for name, shape in outputs.items()
    }
    for array in arrays.values():
        if array.ndim == 3 and array.shape[2] >= 4:
            array[..., :4] = fill * np.array([0.5, 0.5, 1, 1])  # corners in order: x1 y1 < x2 y2
    return recognise(Probe("m.onnx", arrays, *size, metadata or {}, manifest, has_sizes_input=sizes))


def test_the_usual_head_has_8400_cells_at_640() -> None:
    assert CELLS == 8400
    assert anchor_count(416, 416, (8, 16, 32)) == 3549


@pytest.mark.parametrize(
    ("outputs", "size", "family", "classes"),
    [
        ({"output0": (1, 84, 8400)}, (640, 640), Family.YOLO, 80),
        ({"output0": (1, 5, 8400)}, (640, 640), Family.YOLO, 1),
        ({"output0": (1, 6, 8400)}, (640, 640), Family.YOLO, 2),
        ({"output0": (1, 7, 4725)}, (640, 360 - 8), Family.YOLO, None),
        ({"output0": (1, 84, 8500)}, (640, 640), Family.YOLO, 80),  # a fourth level with stride 64
        ({"a": (1, 84, 8400), "b": (1, 84, 8400)}, (640, 640), Family.YOLO, 80),  # auxiliary head
        ({"output": (1, 3549, 85)}, (416, 416), Family.YOLOX, 80),
        ({"output": (1, 3549, 6)}, (416, 416), Family.YOLOX, 1),
        ({"output0": (1, 25200, 85)}, (640, 640), Family.YOLOV5, 80),
        ({"output0": (1, 25200, 6)}, (640, 640), Family.YOLOV5, 1),
        (
            {"output": (1, 25200, 85), "x": (1, 3, 80, 80, 85), "y": (1, 3, 40, 40, 85)},
            (640, 640),
            Family.YOLOV5,
            80,
        ),
        ({"output0": (1, 300, 6)}, (640, 640), Family.YOLO_END2END, None),
        ({"logits": (1, 300, 80), "pred_boxes": (1, 300, 4)}, (640, 640), Family.DETR, 80),
        # The last logit of RF-DETR is the background.
        ({"dets": (1, 300, 4), "labels": (1, 300, 4)}, (560, 560), Family.DETR, 3),
        ({"logits": (1, 300, 4), "pred_boxes": (1, 300, 4)}, (640, 640), Family.DETR, 4),
        ({"output": (0, 7)}, (640, 640), Family.YOLOV7_END2END, None),
        ({"graph2_flat_predictions": (0, 7)}, (640, 640), Family.YOLO_NAS, None),
        ({"boxes": (1, 8400, 4), "scores": (1, 8400, 80)}, (640, 640), Family.YOLO_NAS, 80),
        ({"scores": (1, 8400, 4), "boxes": (1, 8400, 4)}, (640, 640), Family.YOLO_NAS, 4),
        ({"labels": (1, 300), "boxes": (1, 300, 4), "scores": (1, 300)}, (640, 640), Family.DETR, None),
    ],
)
def test_each_family_is_told_by_its_shapes(
    outputs: dict[str, tuple[int, ...]], size: tuple[int, int], family: Family, classes: int | None
) -> None:
    if classes is None and family is Family.YOLO:  # the input is not square
        outputs = {"output0": (1, 7, anchor_count(*size, (8, 16, 32)))}
        classes = 3
    layout = recognised(outputs, size=size)
    assert (layout.family, layout.class_count) == (family, classes)
    assert layout.convention.placement == CONVENTIONS[family].placement


@pytest.mark.parametrize(
    "outputs",
    [
        {"output0": (1, 10)},
        {"output0": (1, 84, 8399)},
        {"output0": (1, 4, 8400)},
        {"output0": (1, 25200, 5)},
        {"boxes": (1, 8399, 4), "scores": (1, 8399, 80)},
        {"output0": (1, 116, 8400), "output1": (1, 32, 160)},
        {},
    ],
)
def test_unknown_shapes_are_refused_with_all_that_would_do(outputs: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(ModelRefused) as refusal:
        recognised(outputs)
    for part in ("m.onnx", "classes, 8400]", "25200", "640x640", "docs/models.md"):
        assert part in str(refusal.value)


def test_metadata_tells_end2end_from_a_yolox_of_one_class() -> None:
    shape = {"output0": (1, anchor_count(64, 64, (8, 16, 32)), 6)}
    assert recognised(shape, size=(64, 64)).family is Family.YOLOX
    told = recognised(shape, size=(64, 64), metadata={"end2end": "True"})
    assert told.family is Family.YOLO_END2END


def test_a_yolox_shape_with_pixels_in_it_is_refused_until_the_manifest_tells() -> None:
    outputs = {"output": (1, 3549, 85)}
    with pytest.raises(ModelRefused, match="in pixels already"):
        recognised(outputs, size=(416, 416), fill=200.0)
    manifest = Manifest(family=Family.YOLOV5)
    assert recognised(outputs, size=(416, 416), fill=200.0, manifest=manifest).family is Family.YOLOV5


def test_a_family_in_the_manifest_excludes_the_others() -> None:
    with pytest.raises(ModelRefused, match=r"family yolov5: \[batch, 25200"):
        recognised({"output0": (1, 84, 8400)}, manifest=Manifest(family=Family.YOLOV5))


def test_the_manifest_overrides_the_convention_field_by_field() -> None:
    manifest = Manifest(colour=Colour.BGR, placement=Placement.STRETCH, pad_value=0)
    convention = recognised({"output0": (1, 84, 8400)}, manifest=manifest).convention
    assert (convention.colour, convention.placement, convention.pad_value) == (
        Colour.BGR,
        Placement.STRETCH,
        0,
    )
    assert convention.scale == CONVENTIONS[Family.YOLO].scale


def test_detr_outputs_are_found_by_role_whatever_their_order() -> None:
    ready = recognised({"scores": (1, 300), "boxes": (1, 300, 4), "labels": (1, 300)}, fill=0.5)
    assert ready.outputs == ("labels", "boxes", "scores")
    assert (ready.form, ready.normalised) == (OutputForm.READY, True)
    logits = recognised({"pred_boxes": (1, 300, 4), "logits": (1, 300, 80)})
    assert logits.outputs == ("logits", "pred_boxes")


def test_ready_boxes_are_pixels_when_the_size_is_an_input_or_the_values_say_so() -> None:
    outputs = {"labels": (1, 300), "boxes": (1, 300, 4), "scores": (1, 300)}
    assert not recognised(outputs, fill=0.5, sizes=True).normalised
    assert not recognised(outputs, fill=300.0).normalised


def test_imagenet_normalisation_goes_with_rf_detr_and_softmax() -> None:
    plain = recognised({"logits": (1, 300, 80), "pred_boxes": (1, 300, 4)})
    assert plain.convention.mean == (0, 0, 0)
    assert recognised({"dets": (1, 300, 4), "labels": (1, 300, 81)}).convention.mean[0] == 0.485
    manifest = Manifest(activation=Activation.SOFTMAX)
    softmax = recognised({"logits": (1, 300, 3), "pred_boxes": (1, 300, 4)}, manifest=manifest)
    assert (softmax.convention.std[0], softmax.class_count) == (0.229, 2)


def graph(
    shape: tuple[int | None, ...] = (None, 3, None, None),
    dtype: str = "tensor(float)",
    metadata: dict[str, str] | None = None,
    *more: Tensor,
) -> Graph:
    return Graph((Tensor("images", dtype, shape), *more), (), metadata or {})


@pytest.mark.parametrize(
    ("shape", "metadata", "manifest", "size"),
    [
        ((1, 3, 320, 416), {}, Manifest(), (416, 320)),
        ((None, 3, None, None), {}, Manifest(), (640, 640)),
        ((None, 3, None, None), {"imgsz": "[320, 416]"}, Manifest(), (416, 320)),
        ((None, 3, None, None), {"imgsz": "512"}, Manifest(), (512, 512)),
        ((None, 3, None, None), {"imgsz": "__import__('os')"}, Manifest(), (640, 640)),
        ((None, 3, None, None), {"imgsz": "[320, 416]"}, Manifest(input=(96, 64)), (96, 64)),
        ((None, None, 96, None), {"imgsz": "[320, 416]"}, Manifest(), (416, 96)),
    ],
)
def test_the_size_comes_from_graph_manifest_metadata_or_640(
    shape: tuple[int | None, ...], metadata: dict[str, str], manifest: Manifest, size: tuple[int, int]
) -> None:
    found = image_input("m.onnx", graph(shape, metadata=metadata), manifest)
    assert (found.width, found.height) == size


SIZES = Tensor("orig_target_sizes", "tensor(int64)", (None, 2))


def test_the_second_input_of_rt_detr_is_known() -> None:
    found = image_input("m.onnx", graph((None, 3, 640, 640), "tensor(float16)", None, SIZES), Manifest())
    assert (found.sizes_name, found.half, found.batch) == ("orig_target_sizes", True, None)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (graph((3, 640, 640)), "to be .batch, planes, height, width"),
        (graph((1, 2, 640, 640)), "3 planes or 1"),
        (graph((1, 640, 640, 4)), "3 planes or 1"),
        (graph((0, 3, 640, 640)), "batch of at least 1"),
        (graph((1, 3, 16, 640)), "640x16"),
        (graph(dtype="tensor(int8)"), r"tensor\(int8\)"),
        (
            graph((1, 3, 640, 640), "tensor(float)", None, Tensor("x", "tensor(float)", (1,))),
            "one image input",
        ),
        (graph((1, 3, 64, 64), "tensor(float)", None, Tensor(SIZES.name, "tensor(float)", (1, 2))), "int64"),
        (Graph((SIZES,), (), {}), "one image input"),
        (graph(metadata={"task": "segment"}), "task `segment`"),
    ],
)
def test_a_graph_that_cannot_take_frames_is_refused(wrong: Graph, text: str) -> None:
    with pytest.raises(ModelRefused, match=text):
        image_input("m.onnx", wrong, Manifest())


def test_a_manifest_s_size_must_agree_with_a_fixed_one() -> None:
    with pytest.raises(ModelRefused, match="416x416, as the manifest's `input` says; found 640x640"):
        image_input("m.onnx", graph((1, 3, 640, 640)), Manifest(input=(416, 416)))


def test_labels_come_from_manifest_metadata_coco_or_numbers() -> None:
    names = {"names": "{0: 'cat', 1: 'dog'}"}
    assert choose_labels("m", Manifest(labels=("a", "b")), names, 2) == ("a", "b")
    assert choose_labels("m", Manifest(), names, 2) == ("cat", "dog")
    assert choose_labels("m", Manifest(), {}, 80) == COCO_80
    assert choose_labels("m", Manifest(), {}, 91, coco_ids=True) == COCO_91
    assert choose_labels("m", Manifest(), {}, 91)[0] == "class_0"
    assert choose_labels("m", Manifest(), {}, 3) == ("class_0", "class_1", "class_2")
    assert len(choose_labels("m", Manifest(), {}, None)) == UNKNOWN_COUNT
    # The classes are others than COCO's if the file names them in a way that cannot be read.
    assert choose_labels("m", Manifest(), {"names": "cat, dog"}, 80)[0] == "class_0"
    assert choose_labels("m", Manifest(), {"names": " "}, 80) == COCO_80


def test_names_in_json_are_read() -> None:
    assert parse_names('{"0": "cat", "1": "dog"}') == ("cat", "dog")
    assert parse_names('["cat", "dog"]') == ("cat", "dog")
    assert parse_names('{"1": "cat", "2": "dog"}') == ()
    assert parse_names(f'{{"{"1" * 5000}": "cat"}}') == ()


@pytest.mark.parametrize(
    ("manifest", "where"), [(Manifest(labels=("a",)), "manifest"), (Manifest(), "metadata")]
)
def test_another_number_of_labels_than_classes_is_refused(manifest: Manifest, where: str) -> None:
    with pytest.raises(ModelRefused, match=rf"{where}.*found outputs for 3 classes"):
        choose_labels("m.onnx", manifest, {"names": "['x', 'y']"}, 3)


def test_a_class_id_without_label_is_refused() -> None:
    check_ids("m.onnx", np.array([[0, 1]]), ("a", "b"))
    with pytest.raises(ModelRefused, match="found class id 2"):
        check_ids("m.onnx", np.array([[0.0, 2.0]]), ("a", "b"))


@pytest.mark.parametrize(
    "text", ["", "{0: 'a', 2: 'b'}", "{'a': 0}", "print('x')", "7", "{", "(" * 5000, "[1] * 10**9"]
)
def test_names_that_are_not_a_plain_table_are_ignored(text: str) -> None:
    assert parse_names(text) == ()


def test_coco_has_80_names_at_their_usual_places() -> None:
    assert len(COCO_80) == 80
    assert len(set(COCO_91)) == 91
    assert (COCO_80[0], COCO_80[39], COCO_80[79]) == ("person", "bottle", "toothbrush")
    assert (COCO_91[1], COCO_91[44], COCO_91[90], COCO_91[12]) == (
        "person",
        "bottle",
        "toothbrush",
        "class_12",
    )
