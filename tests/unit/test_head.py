"""A YOLOX model whose head is opened gives the same boxes in every form of export; other heads stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from inference.core.detection_params import DetectionParams
from inference.engine import onnx_session as module
from inference.engine.detector import Detector
from inference.graph.cpu_model import CpuModel, read_cpu_model
from inference.models.model import Family
from tests.conftest import SHARED
from tests.helpers import model_factory as factory
from tests.helpers import network_factory
from tests.helpers.model_factory import PLAIN, Input
from tests.helpers.network_factory import HeadForm

INPUTS = {
    "dynamic batch": PLAIN,
    "batch of 1": Input(batch=1),
    "batch of 2": Input(batch=2),
    "not square": Input(width=96, height=64),
}
HALF = Input(dtype=np.float16)


def opened(path: Path) -> CpuModel:
    edited = read_cpu_model(path)
    assert edited is not None
    assert edited.head is not None
    return edited


def run(model: Path | bytes, planes: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    source = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, {session.get_inputs()[0].name: planes})]


@pytest.mark.parametrize(
    ("form", "image"),
    [
        (form, image)
        for form in HeadForm
        for image in INPUTS.values()
        # With other batch sizes, this form does not run, or gives one row for any number of frames.
        if form is not HeadForm.BATCH_OF_ONE or image.batch == 1
    ],
    ids=str,
)
def test_its_branches_joined_are_the_output_of_the_file(tmp_path: Path, form: HeadForm, image: Input) -> None:
    path = network_factory.yolox_network(tmp_path / "m.onnx", image, form=form)
    edited = opened(path)
    model = onnx.load_from_string(edited.model)
    onnx.checker.check_model(model, full_check=True)
    assert not {"Sigmoid", "Transpose", "Reshape", "Shape"} & {node.op_type for node in model.graph.node}
    shape = (image.batch or 1, 3, image.height, image.width)
    planes = (255 * np.random.default_rng(2).random(shape)).astype(np.float32)
    (expected,) = run(path, planes)
    assert edited.head is not None
    assert edited.head.name == "output"
    assert edited.head.shape == (image.batch, *expected.shape[1:])
    found = edited.head.join(run(edited.model, planes))
    assert np.allclose(found, expected, atol=1e-5)


@pytest.mark.skipif(not (SHARED / "models").exists(), reason="the shared models are not there")
def test_the_real_one_gives_what_its_file_gives() -> None:
    path = SHARED / "models" / "yolox_nano.onnx"
    edited = opened(path)
    assert edited.head is not None
    assert edited.stem is not None
    planes = (255 * np.random.default_rng(3).random((1, 3, 416, 416))).astype(np.float32)
    corners = [planes[:, :, row::2, column::2] for row, column in edited.stem.patches]
    found = edited.head.join(run(edited.model, np.concatenate(corners, axis=1)))
    (expected,) = run(path, planes)
    assert np.allclose(found[..., :4], expected[..., :4], atol=1e-3)
    assert np.allclose(found[..., 4:], expected[..., 4:], atol=1e-5)


def detectors(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Detector, Detector]:
    """Return a detector with the head opened, and one that runs the unedited file."""
    pair = []
    for read in (read_cpu_model, lambda *_, **__: None):
        with monkeypatch.context() as patch:
            patch.setattr(module, "read_cpu_model", read)
            detector = Detector(path, version="v1", device="cpu", batch_max=4)
            detector.warm_up()
            pair.append(detector)
    return pair[0], pair[1]


def frames(image: Input, count: int) -> list[np.ndarray[Any, Any]]:
    random = np.random.default_rng(5)
    return [random.integers(0, 255, (image.height, image.width, 3), np.uint8) for _ in range(count)]


@pytest.mark.parametrize("image", [*INPUTS.values(), HALF], ids=[*INPUTS, "half precision"])
@pytest.mark.parametrize(
    "params",
    [
        DetectionParams(conf_threshold=0.0, iou_threshold=1.0, max_detections=1000),
        DetectionParams(conf_threshold=0.05),
        DetectionParams(conf_threshold=0.25, class_ids=(0, 2)),
        DetectionParams(conf_threshold=0.5, class_ids=(1,)),
        DetectionParams(conf_threshold=1.0),
    ],
    ids=str,
)
def test_the_detector_finds_the_same_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: Input, params: DetectionParams
) -> None:
    path = network_factory.yolox_network(tmp_path / "m.onnx", image)
    (tmp_path / "m.json").write_text('{"labels": ["a", "b", "c"]}')
    with_branches, plain = detectors(path, monkeypatch)
    assert with_branches.graph == plain.graph
    assert with_branches.layout == plain.layout
    assert with_branches.model.family is Family.YOLOX
    counts = (1, 3) if image.batch is None else (image.batch,)
    for count in counts:
        batch = frames(image, count)
        found, expected = with_branches.infer(batch, thread=0), plain.infer(batch, thread=0)
        assert (len(found.arrays), len(expected.arrays)) == (9, 1)
        for index in range(count):
            boxes = with_branches.postprocess(found, index, params)
            reference = plain.postprocess(expected, index, params)
            assert boxes.dtype == np.float32
            if image is HALF:  # the file rounds scores to half precision, so ties may change order
                assert abs(len(boxes) - len(reference)) <= 2
                assert np.allclose(np.sort(boxes[:, 4])[-20:], np.sort(reference[:, 4])[-20:], atol=2e-3)
            else:
                assert len(boxes) == len(reference)
                assert np.allclose(boxes, reference, rtol=1e-4, atol=1e-3)
    assert params.conf_threshold == 1.0 or len(boxes)


@pytest.mark.parametrize("image", [PLAIN, HALF], ids=["single", "half"])
def test_who_calls_it_another_family_is_served_by_the_output_of_the_file(
    tmp_path: Path, image: Input
) -> None:
    path = network_factory.yolox_network(tmp_path / "m.onnx", image)
    (tmp_path / "m.json").write_text('{"labels": ["a", "b", "c"], "family": "yolov5"}')
    detector = Detector(path, version="v1", device="cpu", batch_max=2)
    detector.warm_up()
    assert detector.model.family is Family.YOLOV5
    (rows,) = detector.infer(frames(PLAIN, 2), thread=0).arrays
    assert rows.shape == (2, len(factory.cells(PLAIN)), 8)
    assert rows.dtype == image.dtype


def test_what_newer_exporters_write_beside_it_is_no_hindrance(tmp_path: Path) -> None:
    path = network_factory.yolox_network(tmp_path / "m.onnx", Input(batch=2))
    model = onnx.load(str(path))
    for node in model.graph.node:
        if node.op_type in ("Conv", "MaxPool"):
            node.attribute.append(helper.make_attribute("auto_pad", "NOTSET"))
        if node.op_type == "Reshape":
            node.attribute.append(helper.make_attribute("allowzero", 1))
    tensor("flat", np.array([2, 8, -1], np.int64))(model.graph)
    onnx.save(model, str(path))
    edited = opened(path)
    windows = [
        node.attribute[0].ints[0]
        for node in onnx.load_from_string(edited.model).graph.node
        if node.op_type == "MaxPool"
    ]
    assert windows == [5, 5, 5]
    planes = (255 * np.random.default_rng(2).random((2, 3, 64, 64))).astype(np.float32)
    assert edited.head is not None
    (expected,) = run(path, planes)
    assert np.allclose(edited.head.join(run(edited.model, planes)), expected, atol=1e-5)


def attribute(op: str, **values: Any) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        node = next(node for node in graph.node if node.output[0] == op)
        kept = [part for part in node.attribute if part.name not in values]
        del node.attribute[:]
        node.attribute.extend([*kept, *(helper.make_attribute(*pair) for pair in values.items())])

    return change


def another_kind(output: str, op: str) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        next(node for node in graph.node if node.output[0] == output).op_type = op

    return change


def inputs_of(output: str, *places: int) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        node = next(node for node in graph.node if node.output[0] == output)
        names = [node.input[place] for place in places]
        del node.input[:]
        node.input.extend(names)

    return change


def tensor(name: str, value: np.ndarray[Any, Any]) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        next(t for t in graph.initializer if t.name == name).CopyFrom(numpy_helper.from_array(value, name))

    return change


def one_more_output(graph: Any) -> None:
    graph.output.append(helper.make_tensor_value_info("rows", TensorProto.FLOAT, None))


def weights_that_are_made(graph: Any) -> None:
    graph.node.insert(0, helper.make_node("Identity", ["class8_weights"], ["made"]))
    next(node for node in graph.node if node.output[0] == "class8").input[1] = "made"


def scores_of_another_domain(graph: Any) -> None:
    next(node for node in graph.node if node.output[0] == "score8").domain = "my.own"


def levels_that_share_a_branch(graph: Any) -> None:
    next(node for node in graph.node if node.output[0] == "joined16").input[0] = "boxes8"


@pytest.mark.parametrize(
    "change",
    {
        "another order of sides": attribute("output", perm=[1, 0, 2]),
        "levels along another axis": attribute("rows", axis=0),
        "branches along another axis": attribute("joined8", axis=2),
        "something else at the end": another_kind("output", "Identity"),
        "scores by another function": another_kind("score16", "HardSigmoid"),
        "scores that are not squashed": another_kind("sure32", "Relu"),
        "branches in another order": inputs_of("joined8", 1, 0, 2),
        "a branch less": inputs_of("joined8", 0, 2),
        "another shape": tensor("flat", np.array([0, 4, -1], np.int64)),
        "a shape for another batch": tensor("flat", np.array([1, 8, -1], np.int64)),
        "a shape with a literal nothing": attribute("row8", allowzero=1),
        "scores of another domain": scores_of_another_domain,
        "a class convolution that pads itself": attribute("class8", auto_pad="SAME_UPPER"),
        "a shape of four": tensor("flat", np.array([0, 8, -1, 1], np.int64)),
        "a class convolution with a border": attribute("class8", pads=[1, 1, 1, 1]),
        "one that skips": attribute("class8", strides=[2, 2]),
        "one that sees more": tensor("class8_weights", np.zeros((3, 6, 3, 3), np.float32)),
        "one in groups": attribute("class8", group=3),
        "one with doubles": tensor("class8_weights", np.zeros((3, 6, 1, 1), np.float64)),
        "weights that are made": weights_that_are_made,
        "a bias of another size": tensor("class8_bias", np.zeros(2, np.float32)),
        "levels of other classes": tensor("class16_weights", np.zeros((4, 6, 1, 1), np.float32)),
        "boxes of five numbers": tensor("boxes8_weights", np.zeros((5, 8, 1, 1), np.float32)),
        "one more output": one_more_output,
        "levels that share a branch": levels_that_share_a_branch,
    }.items(),
    ids=lambda pair: pair[0],
)
def test_other_heads_stay(tmp_path: Path, change: tuple[str, Callable[[Any], None]]) -> None:
    path = network_factory.yolox_network(tmp_path / "m.onnx")
    model = onnx.load(str(path))
    change[1](model.graph)
    onnx.save(model, str(path))
    edited = read_cpu_model(path)
    assert edited is not None  # its pools are chained all the same
    assert edited.head is None
    assert next(value.name for value in onnx.load_from_string(edited.model).graph.output) == "output"


@pytest.mark.parametrize("cut", ["Slice", "Shape", "Concat"])
def test_shapes_that_are_measured_otherwise_stay(tmp_path: Path, cut: str) -> None:
    path = network_factory.yolox_network(tmp_path / "m.onnx", form=HeadForm.MEASURED)
    model = onnx.load(str(path))
    names = {"Slice": ("first_two8", "two", "minus_one"), "Shape": ("size8", "joined8", "joined16")}
    output, old, new = names.get(cut, ("shape8", "minus_one", "two"))
    node = next(node for node in model.graph.node if node.output[0] == output)
    node.input[list(node.input).index(old)] = new
    onnx.save(model, str(path))
    edited = read_cpu_model(path)
    assert edited is not None
    assert edited.head is None
