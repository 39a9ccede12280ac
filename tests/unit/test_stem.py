"""Every form of space-to-depth stem is found and removed; results stay the same, other models as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from inference.engine.detector import Detector
from inference.graph.cpu_model import read_cpu_model
from inference.models.layout import CONVENTIONS
from inference.models.model import Family
from inference.preprocess.preprocess import Preprocessor
from tests.helpers import model_factory as factory
from tests.helpers import network_factory
from tests.helpers.model_factory import PLAIN, Input
from tests.helpers.network_factory import FOCUS

FORMS: dict[str, dict[str, Any]] = {
    "two slices a patch": {},
    "one slice a patch": {"at_once": True},
    "constants as nodes": {"as_nodes": True},
    "32-bit parameters": {"integers": np.int32, "end": (1 << 31) - 1},
    "another order": {"patches": ((1, 1), (0, 0), (0, 1), (1, 0))},
}
INPUTS = {
    "dynamic batch": PLAIN,
    "fixed batch": Input(batch=2),
    "dynamic size": Input(dynamic_size=True, metadata={"imgsz": "[64, 64]"}),
    "not square": Input(width=96, height=64),
}


def run(model: Path | bytes, planes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    source = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"images": planes})
    assert isinstance(output, np.ndarray)
    return output


@pytest.mark.parametrize("image", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_without_its_stem_a_model_gives_the_very_same_numbers(
    tmp_path: Path, form: dict[str, Any], image: Input
) -> None:
    path = network_factory.focus_model(tmp_path / "m.onnx", image, **form)
    edited = read_cpu_model(path)
    assert edited is not None
    assert edited.stem is not None
    assert edited.stem.patches == form.get("patches", FOCUS)
    model = onnx.load_from_string(edited.model)
    onnx.checker.check_model(model, full_check=True)
    assert not any(node.op_type in ("Slice", "Constant") for node in model.graph.node)
    shape = (image.batch or 1, 3, image.height, image.width)
    images = np.random.default_rng(2).random(shape, np.float32)
    patches = np.concatenate([images[:, :, row::2, column::2] for row, column in edited.stem.patches], axis=1)
    assert np.array_equal(run(edited.model, patches), run(path, images))


@pytest.mark.parametrize("family", [Family.YOLO, Family.YOLOX, Family.DETR])
@pytest.mark.parametrize("patches", [FOCUS, FORMS["another order"]["patches"]])
def test_the_normaliser_writes_the_patches_of_its_planes(
    family: Family, patches: tuple[tuple[int, int], ...]
) -> None:
    frame = np.random.default_rng(4).integers(0, 255, (64, 96, 3), np.uint8)
    planes = np.empty((3, 64, 96), np.float32)
    Preprocessor(CONVENTIONS[family], 96, 64).fill(frame, planes)
    found = np.empty((12, 32, 48), np.float32)
    Preprocessor(CONVENTIONS[family], 96, 64, patches).fill(frame, found)
    assert np.array_equal(found, np.concatenate([planes[:, row::2, column::2] for row, column in patches]))


@pytest.mark.parametrize("image", INPUTS.values(), ids=INPUTS)
def test_the_detector_runs_it_without_and_says_what_the_file_declares(tmp_path: Path, image: Input) -> None:
    path = network_factory.focus_model(tmp_path / "m.onnx", image)
    # Its weights are random, so its scores are large everywhere.
    path.with_suffix(".json").write_text('{"family": "yolo"}')
    detector = Detector(path, version="v1", device="cpu", batch_max=4)
    detector.warm_up(inference_threads=2)
    assert detector.image.patches == FOCUS
    sides = (None, None) if image.dynamic_size else (image.height, image.width)
    assert detector.graph.inputs[0].shape == (image.batch, 3, *sides)
    frame = np.random.default_rng(5).integers(0, 255, (image.height, image.width, 3), np.uint8)
    planes = np.empty((1, 3, image.height, image.width), np.float32)
    Preprocessor(detector.layout.convention, image.width, image.height).fill(frame, planes[0])
    expected = run(path, np.repeat(planes, image.batch or 1, axis=0))
    for thread in (0, 1):
        (found,) = detector.infer([frame], thread=thread).arrays
        # The two graphs may be fused differently, so results may differ by single-precision noise.
        assert np.allclose(found[0], expected[0], atol=1e-6)


def changed(path: Path, change: Callable[[Any], None]) -> Path:
    model = onnx.load(str(path))
    change(model.graph)
    onnx.save(model, str(path))
    return path


def read_image_elsewhere(graph: Any) -> None:
    graph.node.append(helper.make_node("Shape", ["images"], ["size"]))
    graph.output.append(helper.make_tensor_value_info("size", TensorProto.INT64, [4]))


def show_a_patch(graph: Any) -> None:
    graph.output.append(helper.make_tensor_value_info("patch_01", TensorProto.FLOAT, None))


def read_a_patch_elsewhere(graph: Any) -> None:
    graph.node.append(helper.make_node("Relu", ["patch_01"], ["again"]))
    graph.output.append(helper.make_tensor_value_info("again", TensorProto.FLOAT, None))


def change_first(graph: Any) -> None:
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == "images":
                node.input[place] = "scaled"
    graph.node.insert(0, helper.make_node("Relu", ["images"], ["scaled"]))


def end_at(row: int) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        for tensor in graph.initializer:
            if tensor.name == "patch_00_rows_ends":
                tensor.CopyFrom(numpy_helper.from_array(np.array([row], np.int64), tensor.name))

    return change


def concatenate_rows(graph: Any) -> None:
    for node in graph.node:
        if node.op_type == "Concat" and node.output[0] == "stem":
            node.attribute[0].i = 2


def feed_itself(graph: Any) -> None:
    for node in graph.node:
        if node.output[0] == "patch_01_rows":
            node.input[0] = "patch_01_rows"


def feed_itself_for_ever(graph: Any) -> None:
    for node in graph.node:
        if node.output[0] == "patch_01":
            node.input[0] = "patch_01"


def drop_inputs(graph: Any) -> None:
    for node in graph.node:
        if node.output[0] == "patch_01_rows":
            del node.input[:]


def begin_with_if(graph: Any) -> None:
    empty = helper.make_graph(
        [helper.make_node("Identity", ["patch_00"], ["taken"])],
        "branch",
        [],
        [helper.make_tensor_value_info("taken", TensorProto.FLOAT, None)],
    )
    graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    graph.node.append(helper.make_node("If", ["yes"], ["chosen"], then_branch=empty, else_branch=empty))
    graph.output.append(helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None))


@pytest.mark.parametrize(
    "change",
    [
        read_image_elsewhere,
        show_a_patch,
        read_a_patch_elsewhere,
        change_first,
        end_at(62),
        concatenate_rows,
        feed_itself,
        feed_itself_for_ever,
        drop_inputs,
        begin_with_if,
    ],
)
def test_what_is_no_such_stem_or_used_otherwise_stays(tmp_path: Path, change: Callable[[Any], None]) -> None:
    assert read_cpu_model(changed(network_factory.focus_model(tmp_path / "m.onnx"), change)) is None


def test_a_side_of_minus_one_is_a_dynamic_one(tmp_path: Path) -> None:
    def change(graph: Any) -> None:
        graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1

    edited = read_cpu_model(changed(network_factory.focus_model(tmp_path / "m.onnx"), change))
    assert edited is not None
    assert edited.stem is not None
    assert edited.stem.shape == (None, 3, 64, 64)


@pytest.mark.parametrize("patches", [FOCUS[:3], (*FOCUS[:3], (0, 0)), (*FOCUS, (0, 0))])
def test_patches_that_do_not_make_up_the_image_stay(
    tmp_path: Path, patches: tuple[tuple[int, int], ...]
) -> None:
    nodes, constants = network_factory.focus(PLAIN, patches)
    factory.save(tmp_path / "m.onnx", nodes, {"stem": (np.float32, [12, 32, 32])}, PLAIN, constants)
    assert read_cpu_model(tmp_path / "m.onnx") is None
