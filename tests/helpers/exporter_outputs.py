"""Creates outputs in the shapes of further exporters, and a model that returns the rows of all frames.

Sizes are in pixels. Boxes are x1, y1, x2, y2, score, class, in pixels of the model input.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper

from tests.helpers.model_factory import PLAIN, Floats, Input, Objects, cells, save


def yolov7_flat(objects: Objects, frame: int = 0) -> Floats:
    """Return [objects, 7] as YOLOv7's repository exports with suppression: frame x1 y1 x2 y2 class score."""
    rows = np.array(objects, np.float32).reshape(-1, 6)
    return np.insert(rows[:, [0, 1, 2, 3, 5, 4]], 0, frame, axis=1)


def yolo_nas_flat(objects: Objects, frame: int = 0) -> Floats:
    """Return [objects, 7], the flat predictions of YOLO-NAS: frame x1 y1 x2 y2 score class."""
    return np.insert(np.array(objects, np.float32).reshape(-1, 6), 0, frame, axis=1)


def yolo_nas_rows(objects: Objects, classes: int, image: Input = PLAIN) -> dict[str, Floats]:
    """Return the raw outputs of YOLO-NAS: corners [1, cells, 4] in pixels and scores [1, cells, classes]."""
    count = len(cells(image))
    boxes, scores = np.zeros((1, count, 4), np.float32), np.zeros((1, count, classes), np.float32)
    for number, (*corners, score, kind) in enumerate(objects):
        boxes[0, 5 * number + 2] = corners
        scores[0, 5 * number + 2, int(kind)] = score
    return {"boxes": boxes, "scores": scores}


def rtdetr_joined(objects: Objects, classes: int, image: Input = PLAIN, queries: int = 300) -> Floats:
    """Return [1, queries, 4 + classes] as Ultralytics exports RT-DETR: cx cy w h in 0..1, then scores."""
    random = np.random.default_rng(7)
    rows = np.zeros((1, queries, 4 + classes), np.float32)
    rows[0, :, :4] = random.uniform(0.1, 0.9, (queries, 4))
    rows[0, :, 4:] = random.uniform(0.001, 0.05, (queries, classes))
    for query, (x1, y1, x2, y2, score, kind) in enumerate(objects):
        rows[0, query, :4] = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
        rows[0, query, :4] /= image.width, image.height, image.width, image.height
        rows[0, query, 4 + kind] = score
    return rows


def flat_model(path: Path, rows: Floats, image: Input = PLAIN, *, name: str = "output") -> Path:
    """Write a model that returns ``rows`` [N, 7] for each frame of a batch, with the frame's number first."""
    # The graph repeats the rows for each frame and adds the number of the frame to their first column.
    count = len(rows)
    nodes = [
        helper.make_node("Shape", [image.name], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["count"]),
        helper.make_node("Squeeze", ["count", "zero"], ["frames"]),
        helper.make_node("Range", ["nought", "frames", "step"], ["numbers"]),
        helper.make_node("Cast", ["numbers"], ["numbers_float"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["numbers_float", "column"], ["each"]),
        helper.make_node("Mul", ["each", "first"], ["offsets"]),
        helper.make_node("Add", ["offsets", "table"], ["stacked"]),
        helper.make_node("Reshape", ["stacked", "flat"], [name]),
    ]
    first = np.zeros((1, count, 7), np.float32)
    first[..., 0] = 1
    constants = [
        numpy_helper.from_array(np.array([0], np.int64), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.array(0, np.int64), "nought"),
        numpy_helper.from_array(np.array(1, np.int64), "step"),
        numpy_helper.from_array(np.array([-1, 1, 1], np.int64), "column"),
        numpy_helper.from_array(np.array([-1, 7], np.int64), "flat"),
        numpy_helper.from_array(first, "first"),
        numpy_helper.from_array(rows[None], "table"),
    ]
    return save(path, nodes, {name: (np.float32, [7])}, image, constants, batch_name="rows")


def dense_rows(objects: Objects, classes: int, image: Input = PLAIN) -> Floats:
    """Return [cells, 4 + classes]: cx cy w h in pixels and scores, as trained heads without objectness do.

    Every cell has a box near itself with low scores, and the objects are in the cells of their centres.
    """
    random = np.random.default_rng(11)
    grid = np.array([((c + 0.5) * s, (r + 0.5) * s, s) for c, r, s in cells(image)], np.float32)
    rows = np.zeros((len(grid), 4 + classes), np.float32)
    rows[:, :2] = grid[:, :2] + random.uniform(-0.5, 0.5, (len(grid), 2)) * grid[:, 2:]
    rows[:, 2:4] = grid[:, 2:] * random.uniform(0.5, 4, (len(grid), 2))
    rows[:, 4:] = random.uniform(0.0001, 0.03, (len(grid), classes))
    for x1, y1, x2, y2, score, kind in objects:
        centre = (x1 + x2) / 2, (y1 + y2) / 2
        taken = rows[:, 4:].max(axis=1) > 0.1
        place = int(np.argmin(np.abs(grid[:, :2] - centre).sum(axis=1) + 1000 * taken))
        rows[place, :4] = *centre, x2 - x1, y2 - y1
        rows[place, 4 + kind] = score
    return rows


def corners_of(rows: Floats) -> Floats:
    """Return x1 y1 x2 y2 of rows that begin with cx cy w h."""
    half = rows[:, 2:4] / 2
    return np.concatenate((rows[:, :2] - half, rows[:, :2] + half), axis=1)


def lit_model(path: Path, outputs: Mapping[str, npt.NDArray[Any]], image: Input = PLAIN) -> Path:
    """Write a model that returns ``outputs`` if a pixel of the batch is white, and else zeros.

    The gradient of the validation run has no white pixel, so that the run finds nothing.
    """
    nodes = [
        helper.make_node("Shape", [image.name], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["count"]),
        helper.make_node("ReduceMax", [image.name], ["light"], keepdims=0),
        helper.make_node("Greater", ["light", "white"], ["lit"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([0], np.int64), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.array(0.95, np.float32), "white"),
    ]
    for name, array in outputs.items():
        constants.append(numpy_helper.from_array(array, f"{name}_value"))
        constants.append(numpy_helper.from_array(np.array(array.shape[1:], np.int64), f"{name}_rest"))
        constants.append(numpy_helper.from_array(np.zeros((), array.dtype), f"{name}_nought"))
        nodes += [
            helper.make_node("Concat", ["count", f"{name}_rest"], [f"{name}_to"], axis=0),
            helper.make_node("Where", ["lit", f"{name}_value", f"{name}_nought"], [f"{name}_shown"]),
            helper.make_node("Expand", [f"{name}_shown", f"{name}_to"], [name]),
        ]
    declared = {name: (array.dtype, [*array.shape[1:]]) for name, array in outputs.items()}
    return save(path, nodes, declared, image, constants)
