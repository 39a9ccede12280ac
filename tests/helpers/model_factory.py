"""Creates tiny ONNX models for tests: every family with chosen boxes, models that find colours or nothing.

Sizes are in pixels. Boxes are x1, y1, x2, y2, score, class, in pixels of the model input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Floats = npt.NDArray[np.float32]
Objects = Sequence[tuple[float, float, float, float, float, int]]

STRIDES = (8, 16, 32)
#: Two overlapping boxes of class 0 (non-maximum suppression keeps the first), and one box of class 1.
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
    """Describes the image input of a model, and holds the metadata to write into the model."""

    width: int = 64
    height: int = 64
    #: Batch size; None makes it dynamic.
    batch: int | None = None
    dynamic_size: bool = False
    name: str = "images"
    dtype: Any = np.float32
    #: Whether to add the second input of RT-DETR and D-FINE exports.
    sizes: bool = False
    #: Number of colour planes, and whether they are the last dimension.
    planes: int = 3
    channels_last: bool = False
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
    batch_name: str = "batch",
) -> Path:
    """Write a model of these nodes; ``outputs`` maps names to element type and shape without the batch."""
    batch = image.batch or "batch"
    size: list[int | str] = ["height", "width"] if image.dynamic_size else [image.height, image.width]
    shape = [*size, image.planes] if image.channels_last else [image.planes, *size]
    inputs = [
        helper.make_tensor_value_info(image.name, _TYPES[np.dtype(image.dtype)], [batch, *shape]),
    ]
    if image.sizes:
        inputs.append(helper.make_tensor_value_info("orig_target_sizes", TensorProto.INT64, [batch, 2]))
    declared = [
        helper.make_tensor_value_info(
            name, _TYPES[np.dtype(dtype)], [batch if batch_name == "batch" else batch_name, *shape]
        )
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

    If ``repeats`` is false, it returns them only once for the whole batch, as a broken export does. With
    ``open_rows``, the number of rows varies as if the graph did suppression: all rows if the brightest pixel
    of the batch is white, none if it is black.
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
    """Return nodes that keep the first rows of ``whole``.

    The value of the brightest pixel, 0 to 1, is the share of rows that they keep.
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
    """Write a yolo model that finds ``objects``, by default none, whatever the image shows."""
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
    """Return [1, cells, 5 + classes] with objects on all three strides; boxes are relative to grid cells."""
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
    """Write a yolo model of three classes whose scores are the means of its three input planes.

    The graph divides an input of uint8 by 255. If the input has one plane, the score of the first class is
    its mean, and the scores of the others are 0.
    """
    count = len(cells(image))
    boxes = yolo_rows([(8, 8, 40, 40, 0.0, 0)], 3, image)[:, :4]
    boxes[:] = boxes[:, :, 3:4]
    axes = [1, 2] if image.channels_last else [2, 3]
    ones = np.ones((1, 3, count), np.float32)
    if image.planes == 1:
        ones[:, 1:] = 0
    nodes = [
        helper.make_node("Cast", [image.name], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels", "unit"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled"], ["means"], axes=axes, keepdims=0),
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
        numpy_helper.from_array(ones, "ones"),
        numpy_helper.from_array(np.float32(1 / 255 if image.dtype == np.uint8 else 1).reshape(()), "unit"),
        numpy_helper.from_array(np.float32(0).reshape(()), "nought"),
        numpy_helper.from_array(boxes, "boxes"),
    ]
    return save(path, nodes, {"output0": (np.float32, [7, count])}, image, constants)


def blob_model(path: Path, image: Input = PLAIN, *, opset: int = 17) -> Path:
    """Write a yolo model of one class that finds bright cells, with layers like those of real detectors.

    It has two convolutions with SiLU, and a head of one convolution for each of three levels. Its output
    concatenates boxes in pixels and scores of 0..1. A grey of 0.7 scores one half, white nearly 1. The graph
    moves channels that are last to the front, and divides an input of uint8 by 255.
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

    pixels = image.name
    if image.dtype == np.uint8:
        nodes.append(helper.make_node("Cast", [pixels], ["numbers"], name="numbers", to=TensorProto.FLOAT))
        unit = constant("unit", np.array(1 / 255, np.float32))
        nodes.append(helper.make_node("Mul", ["numbers", unit], ["scaled"], name="scaled"))
        pixels = "scaled"
    if image.channels_last:
        nodes.append(helper.make_node("Transpose", [pixels], ["planes"], name="planes", perm=[0, 3, 1, 2]))
        pixels = "planes"
    gains = np.array([4, 3, 2, 1, -1, -2, 0.5, 0.1], np.float32)
    shape = (8, image.planes, 8, 8)
    means = np.broadcast_to(gains[:, None, None, None] / (image.planes * 64), shape).astype(np.float32)
    first = silu(conv("first", pixels, means, np.zeros(8, np.float32), stride=8))
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
