"""Creates ONNX models that cannot be loaded, fail while they run, or violate what they declare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.helpers.model_factory import (
    OBJECTS,
    PLAIN,
    Input,
    cells,
    constant_model,
    save,
    yolo_rows,
)


def white_pixel_fails_model(path: Path, image: Input = PLAIN) -> Path:
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


def endless_model(path: Path) -> Path:
    """Write a model whose first run takes years: a loop of 2^62 rounds."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on_in"], ["go_on"]),
            helper.make_node("Add", ["sum_in", "step"], ["sum_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_in", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_out", TensorProto.FLOAT, [1]),
        ],
        [numpy_helper.from_array(np.array([1], np.float32), "step")],
    )
    count = 84
    nodes = [
        # The loop depends on the image, so that it is not computed when the file is loaded.
        helper.make_node("ReduceMin", [PLAIN.name], ["least"], axes=[0, 1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["least", "one"], ["start"]),
        helper.make_node("Loop", ["rounds", "always", "start"], ["total"], body=body),
        helper.make_node("Expand", ["total", "shape"], ["output0"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(1 << 62, np.int64), "rounds"),
        numpy_helper.from_array(np.array(True), "always"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.array([1, 6, count], np.int64), "shape"),
    ]
    return save(path, nodes, {"output0": (np.float32, [6, count])}, PLAIN, constants)


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
