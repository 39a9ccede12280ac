"""Creates tiny ONNX models with the parts that the service rewrites on loading: a stem, pools, a head.

Sizes are in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper, numpy_helper

from tests.helpers.model_factory import (
    PLAIN,
    STRIDES,
    Input,
    cells,
    save,
)

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

    The nodes slice rows and columns one after the other, or with ``at_once`` in one Slice node. The
    parameters of Slice are initializers, or with ``as_nodes`` Constant nodes.
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
    """Write a model with one MaxPool of its image for each window size; the outputs are ``pool_5`` etc."""
    nodes, outputs = [], {}
    for window in windows:
        given = {"kernel_shape": [window] * 2, "pads": [window // 2] * 4, "strides": [1, 1]} | attributes
        nodes.append(helper.make_node("MaxPool", [image.name], [f"pool_{window}"], **given))
        outputs[f"pool_{window}"] = (np.float32, [3, image.height, image.width])
    return save(path, nodes, outputs, image)


class HeadForm(StrEnum):
    """Lists the target shapes with which exports reshape all cells of a level into a row."""

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
