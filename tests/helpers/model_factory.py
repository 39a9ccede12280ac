"""Creates tiny ONNX models for tests: every family with chosen boxes, a model that does nothing, and faulty
ones.

Sizes are in pixels. Boxes are x1, y1, x2, y2, score, class, in pixels of the model input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Floats = npt.NDArray[np.float32]
Objects = Sequence[tuple[float, float, float, float, float, int]]

STRIDES = (8, 16, 32)
#: Two overlapping boxes of class 0, of which non-maximum suppression keeps the first, and one of class 1.
OBJECTS: Objects = (
    (8.0, 8.0, 40.0, 48.0, 0.9, 0),
    (10.0, 9.0, 41.0, 50.0, 0.6, 0),
    (50.0, 20.0, 60.0, 60.0, 0.75, 1),
)
#: The same without the overlapping box, for families with suppression in the graph.
DISTINCT: Objects = (OBJECTS[0], OBJECTS[2])

_TYPES = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(np.int64): TensorProto.INT64,
    np.dtype(np.uint8): TensorProto.UINT8,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """The image input of a model, and the metadata written about it."""

    width: int = 64
    height: int = 64
    #: None means a dynamic size.
    batch: int | None = None
    dynamic_size: bool = False
    name: str = "images"
    dtype: Any = np.float32
    #: Whether to add the second input of RT-DETR and D-FINE exports.
    sizes: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)


PLAIN = Input()


def save(
    path: Path,
    nodes: Sequence[Any],
    outputs: Mapping[str, tuple[Any, Sequence[int | str]]],
    image: Input = PLAIN,
    constants: Iterable[Any] = (),
    *,
    opset: int = 17,
) -> Path:
    """Write a model of these nodes; ``outputs`` maps names to element type and shape without the batch."""
    batch = image.batch or "batch"
    size: list[int | str] = ["height", "width"] if image.dynamic_size else [image.height, image.width]
    inputs = [
        helper.make_tensor_value_info(image.name, _TYPES[np.dtype(image.dtype)], [batch, 3, *size]),
    ]
    if image.sizes:
        inputs.append(helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [batch, 2]))
    declared = [
        helper.make_tensor_value_info(name, _TYPES[np.dtype(dtype)], [batch, *shape])
        for name, (dtype, shape) in outputs.items()
    ]
    graph = helper.make_graph(list(nodes), "test", inputs, declared, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    for key, value in image.metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, str(path))
    return path


def constant_model(
    path: Path,
    outputs: Mapping[str, npt.NDArray[Any]],
    image: Input = PLAIN,
    *,
    repeats: bool = True,
    open_rows: bool = False,
) -> Path:
    """Write a model that returns ``outputs`` (batch of one) for every frame, whatever the frame shows.

    With ``repeats`` false it returns them once for the whole batch, as a broken export does. With
    ``open_rows`` a white frame gets all rows and a black one none, as if suppression in the graph decided the
    number of rows.
    """
    nodes = [
        helper.make_node("Shape", [image.name], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["count"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([0], np.int64), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
    ]
    if image.sizes:  # the second input must be used, otherwise the runtime removes it
        nodes.append(helper.make_node("Shape", ["orig_target_sizes"], ["unused"]))
    for name, array in outputs.items():
        constants.append(numpy_helper.from_array(array, f"{name}_value"))
        constants.append(numpy_helper.from_array(np.array(array.shape[1:], np.int64), f"{name}_rest"))
        nodes.append(
            helper.make_node(
                "Concat", ["count" if repeats else "one", f"{name}_rest"], [f"{name}_to"], axis=0
            )
        )
        whole = f"{name}_whole" if open_rows else name
        nodes.append(helper.make_node("Expand", [f"{name}_value", f"{name}_to"], [whole]))
        if open_rows:
            nodes += _cut_by_brightness(image, whole, name)
            constants.append(numpy_helper.from_array(np.array([array.shape[1]], np.float32), f"{name}_rows"))
    declared: dict[str, tuple[Any, list[int | str]]] = {
        name: (array.dtype, ["rows", *array.shape[2:]] if open_rows else [*array.shape[1:]])
        for name, array in outputs.items()
    }
    return save(path, nodes, declared, image, constants)


def _cut_by_brightness(image: Input, whole: str, name: str) -> list[Any]:
    """Return nodes that keep the first rows of ``whole``: their share is the value of the brightest pixel, 0
    to 1.
    """
    return [
        helper.make_node("ReduceMax", [image.name], [f"{name}_light"], keepdims=0),
        helper.make_node("Mul", [f"{name}_light", f"{name}_rows"], [f"{name}_share"]),
        helper.make_node("Cast", [f"{name}_share"], [f"{name}_end"], to=TensorProto.INT64),
        helper.make_node("Slice", [whole, "zero", f"{name}_end", "one"], [name]),
    ]


def null_model(
    path: Path, *, batch: int | None = None, size: int = 320, classes: int = 1, objects: Objects = ()
) -> Path:
    """Write a model of family yolo that does nothing: it finds ``objects``, by default none."""
    image = Input(width=size, height=size, batch=batch)
    return constant_model(path, {"output0": yolo_rows(objects, classes, image)}, image)


def cells(image: Input) -> list[tuple[int, int, int]]:
    """Return column, row and stride of every cell of a dense head, finest stride first."""
    return [
        (column, row, stride)
        for stride in STRIDES
        for row in range(image.height // stride)
        for column in range(image.width // stride)
    ]


def yolo_rows(objects: Objects, classes: int, image: Input = PLAIN) -> Floats:
    """Return [1, 4 + classes, cells] with the objects spread over the cells."""
    rows = np.zeros((1, 4 + classes, len(cells(image))), np.float32)
    for number, (x1, y1, x2, y2, score, kind) in enumerate(objects):
        place = 7 * number + 3
        rows[0, :4, place] = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
        rows[0, 4 + kind, place] = score
    return rows


def yolov5_rows(objects: Objects, classes: int, image: Input = PLAIN) -> Floats:
    """Return [1, 3 * cells, 5 + classes] with objectness 0.95; score = objectness times class score."""
    rows = np.zeros((1, 3 * len(cells(image)), 5 + classes), np.float32)
    for number, (x1, y1, x2, y2, score, kind) in enumerate(objects):
        row = rows[0, 11 * number + 5]
        row[:5] = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0.95
        row[5 + kind] = score / 0.95
    return rows


def yolox_rows(objects: Objects, classes: int, image: Input = PLAIN) -> Floats:
    """Return [1, cells, 5 + classes] with boxes relative to their grid cell, and objects on all three
    strides.
    """
    grid = cells(image)
    rows = np.zeros((1, len(grid), 5 + classes), np.float32)
    for number, (x1, y1, x2, y2, score, kind) in enumerate(objects):
        place = [2, len(grid) - 1, len(grid) - 7][number % 3]
        column, line, stride = grid[place]
        row = rows[0, place]
        row[:2] = (x1 + x2) / 2 / stride - column, (y1 + y2) / 2 / stride - line
        row[2:5] = np.log((x2 - x1) / stride), np.log((y2 - y1) / stride), 0.95
        row[5 + kind] = score / 0.95
    return rows


def end2end_rows(objects: Objects, queries: int = 20) -> Floats:
    """Return [1, queries, 6], the output of models with suppression in the graph."""
    rows = np.zeros((1, queries, 6), np.float32)
    rows[0, : len(objects)] = np.array(objects, np.float32).reshape(-1, 6)
    return rows


def detr_ready(objects: Objects, queries: int = 20, unit: tuple[int, int] | None = None) -> dict[str, Any]:
    """Return labels, boxes and scores; boxes are divided by the width and height in ``unit``."""
    rows = end2end_rows(objects, queries)
    boxes = rows[..., :4] / np.array((unit or (1, 1)) * 2, np.float32)
    return {"labels": rows[..., 5].astype(np.int64), "boxes": boxes, "scores": rows[..., 4]}


def detr_logits(
    objects: Objects, classes: int, image: Input = PLAIN, queries: int = 20
) -> tuple[Floats, Floats]:
    """Return logits [1, queries, classes], whose sigmoids are the scores, and boxes [1, queries, 4], 0 to 1.

    The boxes are centre x, centre y, width and height as fractions of the image.
    """
    logits = np.full((1, queries, classes), -12.0, np.float32)
    boxes = np.full((1, queries, 4), 0.5, np.float32)
    for query, (x1, y1, x2, y2, score, kind) in enumerate(objects):
        logits[0, query, kind] = np.log(score / (1 - score))
        boxes[0, query] = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
        boxes[0, query] /= image.width, image.height, image.width, image.height
    return logits, boxes


def colour_model(path: Path, image: Input = PLAIN) -> Path:
    """Write a yolo model of three classes whose scores are the means of its three input planes."""
    count = len(cells(image))
    boxes = yolo_rows([(8, 8, 40, 40, 0.0, 0)], 3, image)[:, :4]
    boxes[:] = boxes[:, :, 3:4]
    nodes = [
        helper.make_node("ReduceMean", [image.name], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["means", "two"], ["column"]),
        helper.make_node("Mul", ["column", "ones"], ["scores"]),
        helper.make_node("Mul", ["scores", "nought"], ["blank"]),
        helper.make_node("Slice", ["blank", "zero", "one", "one"], ["row"]),
        helper.make_node("Add", ["row", "boxes"], ["placed"]),
        helper.make_node("Concat", ["placed", "scores"], ["output0"], axis=1),
    ]
    constants = [
        numpy_helper.from_array(np.array([2], np.int64), "two"),
        numpy_helper.from_array(np.array([0], np.int64), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.ones((1, 3, count), np.float32), "ones"),
        numpy_helper.from_array(np.float32(0).reshape(()), "nought"),
        numpy_helper.from_array(boxes, "boxes"),
    ]
    return save(path, nodes, {"output0": (np.float32, [7, count])}, image, constants)


def blob_model(path: Path, image: Input = PLAIN, *, opset: int = 17) -> Path:
    """Write a yolo model of one class that finds bright cells, with layers like those of real detectors.

    It has two convolutions with SiLU, and three levels with a convolution each as head. Boxes in pixels and
    scores of 0..1 are concatenated to one output. A grey of 0.7 scores one half, white nearly 1.
    """
    random = np.random.default_rng(3)
    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, value: npt.NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def conv(name: str, source: str, weights: Floats, bias: Floats, stride: int = 1) -> str:
        inputs = [source, constant(f"{name}_w", weights), constant(f"{name}_b", bias)]
        nodes.append(helper.make_node("Conv", inputs, [name], name=name, strides=[stride, stride]))
        return name

    def silu(source: str) -> str:
        nodes.append(helper.make_node("Sigmoid", [source], [f"{source}_gate"], name=f"{source}_gate"))
        nodes.append(
            helper.make_node("Mul", [source, f"{source}_gate"], [f"{source}_act"], name=f"{source}_act")
        )
        return f"{source}_act"

    gains = np.array([4, 3, 2, 1, -1, -2, 0.5, 0.1], np.float32)
    means = np.broadcast_to(gains[:, None, None, None] / (3 * 64), (8, 3, 8, 8)).astype(np.float32)
    first = silu(conv("first", image.name, means, np.zeros(8, np.float32), stride=8))
    mixing = random.normal(0, 0.05, (8, 8, 1, 1)).astype(np.float32)
    mixing[0, :, 0, 0] = np.eye(8, dtype=np.float32)[0]
    features = silu(conv("second", first, mixing, np.zeros(8, np.float32)))
    levels = []
    # Value of channel 0 for a grey of 0.7, where the score must be one half.
    middle = 0.7 * 4 / (1 + np.exp(-0.7 * 4))
    middle /= 1 + np.exp(-middle)
    for stride in STRIDES:
        source = features
        if stride > 8:
            source = f"pooled_{stride}"
            size = [stride // 8] * 2
            nodes.append(
                helper.make_node(
                    "AveragePool", [features], [source], name=source, kernel_shape=size, strides=size
                )
            )
        weights = np.zeros((5, 8, 1, 1), np.float32)
        weights[4, 0] = 8
        bias = np.array([0, 0, 0, 0, -8 * middle], np.float32)
        level = conv(f"head_{stride}", source, weights, bias)
        nodes.append(helper.make_node("Reshape", [level, "rows"], [f"{level}_rows"], name=f"{level}_rows"))
        levels.append(f"{level}_rows")
    constant("rows", np.array([0, 5, -1], np.int64))
    grid = np.array([[(c + 0.5) * s, (r + 0.5) * s, s, s] for c, r, s in cells(image)], np.float32).T[None]
    for name, value in (("nought", 0), ("four", 4), ("five", 5), ("channel", 1)):
        constant(name, np.array([value], np.int64))
    nodes += [
        helper.make_node("Concat", levels, ["all"], name="all", axis=2),
        helper.make_node("Slice", ["all", "nought", "four", "channel"], ["offsets"], name="offsets"),
        helper.make_node("Slice", ["all", "four", "five", "channel"], ["logits"], name="logits"),
        helper.make_node("Add", ["offsets", constant("grid", grid)], ["boxes"], name="boxes"),
        helper.make_node("Sigmoid", ["logits"], ["scores"], name="scores"),
        helper.make_node("Concat", ["boxes", "scores"], ["output0"], name="output0", axis=1),
    ]
    return save(path, nodes, {"output0": (np.float32, [5, len(cells(image))])}, image, constants, opset=opset)


#: Row and column offsets of the patches, in the order of YOLOX and YOLOv5.
FOCUS = ((0, 0), (1, 0), (0, 1), (1, 1))


def focus(
    image: Input,
    patches: Sequence[tuple[int, int]] = FOCUS,
    *,
    at_once: bool = False,
    as_nodes: bool = False,
    integers: Any = np.int64,
    end: int = (1 << 63) - 1,
) -> tuple[list[Any], list[Any]]:
    """Return the nodes of a space-to-depth stem from the image to `stem`, and their constants.

    Rows and columns are sliced one after the other, or in one Slice with ``at_once``. The parameters are
    initializers, or Constant nodes with ``as_nodes``.
    """
    nodes: list[Any] = []
    constants: dict[str, Any] = {}

    def sliced(source: str, target: str, axes: Sequence[int], starts: Sequence[int]) -> None:
        names = []
        values = {"starts": starts, "ends": [end] * len(axes), "axes": axes, "steps": [2] * len(axes)}
        for what, numbers in values.items():
            name = f"{target}_{what}"
            tensor = numpy_helper.from_array(np.array(numbers, integers), name)
            if as_nodes:
                nodes.append(helper.make_node("Constant", [], [name], value=tensor))
            else:
                constants[name] = tensor
            names.append(name)
        nodes.append(helper.make_node("Slice", [source, *names], [target]))

    branches = []
    for row, column in patches:
        name = f"patch_{row}{column}"
        if at_once:
            sliced(image.name, name, [2, 3], [row, column])
        else:
            sliced(image.name, f"{name}_rows", [-2], [row])
            sliced(f"{name}_rows", name, [3], [column])
        branches.append(name)
    nodes.append(helper.make_node("Concat", branches, ["stem"], axis=1))
    return nodes, list(constants.values())


def focus_model(path: Path, image: Input = PLAIN, **kind: Any) -> Path:
    """Write a yolo model of three classes; every output depends on the pixels behind a `focus` stem."""
    nodes, constants = focus(image, **kind)
    random = np.random.default_rng(1)
    weights = random.normal(0, 0.2, (7, 12, 3, 3)).astype(np.float32)
    constants.append(numpy_helper.from_array(weights, "weights"))
    constants.append(numpy_helper.from_array(np.array([0, 7, -1], np.int64), "flat"))
    nodes.append(helper.make_node("Conv", ["stem", "weights"], ["mixed"], pads=[1, 1, 1, 1]))
    nodes.append(helper.make_node("Sigmoid", ["mixed"], ["share"]))
    for stride in STRIDES:
        side = [stride // 2] * 2
        nodes.append(helper.make_node("MaxPool", ["share"], [f"p{stride}"], kernel_shape=side, strides=side))
        nodes.append(helper.make_node("Reshape", [f"p{stride}", "flat"], [f"rows{stride}"]))
    nodes.append(helper.make_node("Concat", [f"rows{stride}" for stride in STRIDES], ["output0"], axis=2))
    count = "cells" if image.dynamic_size else len(cells(image))
    return save(path, nodes, {"output0": (np.float32, [7, count])}, image, constants)


def pyramid_model(path: Path, windows: Sequence[int], image: Input = PLAIN, **attributes: Any) -> Path:
    """Write a model that returns the maxima of its image in these windows: ``pool_5`` and so on."""
    nodes, outputs = [], {}
    for window in windows:
        given = {"kernel_shape": [window] * 2, "pads": [window // 2] * 4, "strides": [1, 1]} | attributes
        nodes.append(helper.make_node("MaxPool", [image.name], [f"pool_{window}"], **given))
        outputs[f"pool_{window}"] = (np.float32, [3, image.height, image.width])
    return save(path, nodes, outputs, image)


class HeadForm(StrEnum):
    """The target shape with which an export reshapes all cells of a level into a row."""

    BATCH_OF_ONE = "to 1, channels, -1"
    COPIED = "to 0, 0, -1"
    MEASURED = "to the first two sides of the tensor itself, -1"


def yolox_network(
    path: Path, image: Input = PLAIN, *, form: HeadForm = HeadForm.COPIED, classes: int = 3
) -> Path:
    """Write a yolox model of three levels with real head layers, random weights and a pyramid of pools."""
    random = np.random.default_rng(11)
    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, value: npt.NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def made(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def conv(source: str, name: str, shape: Sequence[int], **attributes: Any) -> str:
        weights = random.normal(0, 0.4, shape).astype(image.dtype)
        bias = random.normal(0, 0.4, shape[0]).astype(image.dtype)
        inputs = [source, constant(f"{name}_weights", weights), constant(f"{name}_bias", bias)]
        return made("Conv", inputs, name, **attributes)

    scaled = made("Mul", [image.name, constant("scale", np.array(1 / 255, image.dtype))], "scaled")
    plain = made("Relu", [conv(scaled, "first", (8, 3, 8, 8), strides=[8, 8])], "plain")
    pools = [
        made("MaxPool", [plain], f"pool_{k}", kernel_shape=[k] * 2, pads=[k // 2] * 4, strides=[1, 1])
        for k in (13, 5, 9)
    ]
    mixed = conv(made("Concat", [plain, *pools], "pyramid", axis=1), "mixed", (8, 32, 1, 1))
    rows = []
    for stride in STRIDES:
        side = [stride // 8] * 2
        level = made("AveragePool", [mixed], f"level{stride}", kernel_shape=side, strides=side)
        feature = made("Relu", [conv(level, f"classify{stride}", (6, 8, 1, 1))], f"feature{stride}")
        score = made("Sigmoid", [conv(feature, f"class{stride}", (classes, 6, 1, 1))], f"score{stride}")
        sure = made("Sigmoid", [conv(level, f"object{stride}", (1, 8, 1, 1))], f"sure{stride}")
        boxes = conv(level, f"boxes{stride}", (4, 8, 1, 1))
        joined = made("Concat", [boxes, sure, score], f"joined{stride}", axis=1)
        if form is HeadForm.MEASURED:
            size = made("Shape", [joined], f"size{stride}")
            first_two = made("Slice", [size, "nought", "two"], f"first_two{stride}")
            shape = made("Concat", [first_two, "minus_one"], f"shape{stride}", axis=0)
        else:
            shape = "flat"
        rows.append(made("Reshape", [joined, shape], f"row{stride}"))
    for name, value in (("nought", 0), ("two", 2), ("minus_one", -1)):
        constant(name, np.array([value], np.int64))
    flat = [1, 5 + classes, -1] if form is HeadForm.BATCH_OF_ONE else [0, 0, -1]
    constant("flat", np.array(flat, np.int64))
    made("Transpose", [made("Concat", rows, "rows", axis=2)], "output", perm=[0, 2, 1])
    declared = {"output": (image.dtype, [len(cells(image)), 5 + classes])}
    return save(path, nodes, declared, image, constants)


def poison_model(path: Path, image: Input = PLAIN) -> Path:
    """Write a yolo model that raises if a pixel of its batch is white (255), and otherwise finds nothing."""
    rows = yolo_rows((), 1, image)
    nodes = [
        helper.make_node("Shape", [image.name], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["count"]),
        helper.make_node("Concat", ["count", "rest"], ["to"], axis=0),
        helper.make_node("ReduceMax", [image.name], ["brightest"], keepdims=0),
        helper.make_node("Add", ["brightest", "almost_nothing"], ["above"]),
        helper.make_node("Cast", ["above"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["single", "index"], ["shade"]),  # out of range for index 1
        helper.make_node("Add", ["rows", "shade"], ["shaded"]),
        helper.make_node("Expand", ["shaded", "to"], ["output0"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([0], np.int64), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.array(rows.shape[1:], np.int64), "rest"),
        numpy_helper.from_array(np.zeros(1, np.float32), "single"),
        numpy_helper.from_array(np.float32(1e-4).reshape(()), "almost_nothing"),
        numpy_helper.from_array(rows, "rows"),
    ]
    return save(path, nodes, {"output0": (np.float32, rows.shape[1:])}, image, constants)


def unknown_operator_model(path: Path) -> Path:
    """Write a model with an unknown operator."""
    nodes = [helper.make_node("Frobnicate", ["images"], ["output0"])]
    return save(path, nodes, {"output0": (np.float32, [5, 84])})


def fixed_reshape_model(path: Path) -> Path:
    """Write a model that declares a dynamic batch but reshapes to a batch of 1."""
    count = len(cells(PLAIN))
    nodes = [
        helper.make_node("Reshape", ["images", "flat"], ["row"]),
        helper.make_node("Slice", ["row", "zero", "needed", "one"], ["cut"]),
        helper.make_node("Mul", ["cut", "nought"], ["blank"]),
        helper.make_node("Reshape", ["blank", "shape"], ["output0"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 3 * 64 * 64], np.int64), "flat"),
        numpy_helper.from_array(np.array([0], np.int64), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.array([5 * count], np.int64), "needed"),
        numpy_helper.from_array(np.array([1, 5, count], np.int64), "shape"),
        numpy_helper.from_array(np.float32(0).reshape(()), "nought"),
    ]
    return save(path, nodes, {"output0": (np.float32, [5, count])}, PLAIN, constants)


def external_data_model(path: Path, location: str) -> Path:
    """Write a model that declares its weights as external data in the file ``location``."""
    constant_model(path, {"output0": yolo_rows(OBJECTS, 2)})
    model = onnx.load(str(path), load_external_data=False)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "output0_value")
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", location
    path.write_bytes(model.SerializeToString())
    return path
