"""Opens the head of a YOLOX: its branches become the outputs, and `Postprocessor` computes the rest.

The graph in the file scores every class of every cell, applies sigmoid, concatenates branches and levels, and
transposes the result, although only a handful of the thousands of rows is used. With an opened head,
`Postprocessor` compares objectness first and only scores the classes of the cells that remain. That saves
some 6 % of the time of YOLOX-nano on a CPU (bench/model_side.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.graph.onnx_graph import Node, OnnxGraph, Shape, shape_of

Floats = npt.NDArray[np.float32]

#: Number of branches of a level: boxes, objectness, and the features from which the classes are scored.
BRANCHES = 3


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """Describes one level of a head: the names of its branches, and the last convolution of class scores."""

    #: Boxes relative to the cell (batch, 4, rows, columns), logits of objectness (batch, 1, ..), and class
    #: features (batch, channels, ..).
    branches: tuple[str, str, str]
    #: Weights of that convolution, (classes, channels).
    weights: Floats
    #: Bias of that convolution, (classes, 1).
    bias: Floats

    def logits(self, features: Floats) -> Floats:
        """Return class logits (classes, cells) of features (channels, cells)."""
        return self.weights @ features + self.bias


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """Describes the outputs of a model with an opened head."""

    levels: tuple[Level, ...]
    #: Name and declared shape of the output of the file.
    name: str
    shape: Shape

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the outputs, level by level."""
        return tuple(name for level in self.levels for name in level.branches)

    def join(self, arrays: Sequence[npt.NDArray[Any]]) -> Floats:
        """Compute the output of the file, (batch, cells, 5 + classes), from the branches."""
        parts = []
        for number, level in enumerate(self.levels):
            flat = (a.reshape(*a.shape[:2], -1) for a in arrays[BRANCHES * number :][:BRANCHES])
            boxes, objectness, features = (part.astype(np.float32) for part in flat)
            with np.errstate(over="ignore"):
                parts.append(
                    np.concatenate((boxes, sigmoid(objectness), sigmoid(level.logits(features))), axis=1)
                )
        return np.ascontiguousarray(np.concatenate(parts, axis=2).transpose(0, 2, 1))


def sigmoid(logits: Floats) -> Floats:
    """Return ``1 / (1 + exp(-x))``; 0 for very low logits, if the caller ignores overflow (`np.errstate`)."""
    one = np.float32(1)
    return np.asarray(one / (one + np.exp(-logits)), dtype=np.float32)


def open_head(graph: OnnxGraph) -> Head | None:
    """Make the branches of ``graph`` its outputs. Returns None and changes nothing if it has no such head."""
    if len(graph.outputs) != 1:
        return None
    ((name, declared),) = graph.outputs.items()
    turned = _made(graph, name, "Transpose")
    joined = _made(graph, turned.inputs[0], "Concat") if turned else None
    if turned is None or joined is None or turned.int_list("perm") != [0, 2, 1]:
        return None
    shape = shape_of(declared)
    levels = [_level(graph, level, shape[0] if shape else None) for level in joined.inputs]
    found = tuple(level for level in levels if level is not None)
    if joined.whole("axis") not in (2, -1) or len(found) != len(levels):
        return None
    head = Head(found, name, shape)
    if len(set(head.branches)) != len(head.branches) or len({len(level.bias) for level in found}) != 1:
        return None
    graph.declare_outputs(head.branches, 4)
    return head


def _level(graph: OnnxGraph, name: str, batch: int | None) -> Level | None:
    """Return the level that makes the tensor ``name``; None if other nodes make it."""
    flat = _made(graph, name, "Reshape")
    joined = _made(graph, flat.inputs[0], "Concat") if flat else None
    if (
        flat is None
        or joined is None
        or joined.whole("axis") not in (1, -3)
        or len(joined.inputs) != BRANCHES
    ):
        return None
    activated = [_made(graph, part, "Sigmoid") for part in joined.inputs[1:]]
    boxes, *logits = joined.inputs[0], *(node.inputs[0] for node in activated if node is not None)
    if len(logits) != 2 or _channels(graph, boxes) != 4 or _channels(graph, logits[0]) != 1:
        return None
    last = _made(graph, logits[1], "Conv")
    table = _table(graph, last) if last else None
    if last is None or table is None or not _flattens(graph, flat, batch, 5 + len(table)):
        return None
    bias = graph.numbers(last.inputs[2]) if len(last.inputs) > 2 else np.zeros(len(table), np.float32)
    if bias is None or bias.shape != table.shape[:1]:
        return None
    return Level((boxes, logits[0], last.inputs[0]), table, bias[:, None])


def _channels(graph: OnnxGraph, name: str) -> int:
    """Return the number of channels of the convolution that makes a tensor; 0 if none makes it."""
    node = _made(graph, name, "Conv")
    shape = graph.sides(node.inputs[1]) if node is not None and len(node.inputs) > 1 else []
    return shape[0] if shape else 0


def _table(graph: OnnxGraph, node: Node) -> Floats | None:
    """Return the weights of a 1x1 convolution; None for any other."""
    weights = graph.numbers(node.inputs[1]) if len(node.inputs) > 1 else None
    if weights is None or weights.ndim != 4 or weights.shape[2:] != (1, 1) or not weights.size:
        return None
    single = {*node.int_list("strides"), *node.int_list("dilations"), node.whole("group") or 1} == {1}
    plain = not any(node.int_list("pads")) and not node.pads_itself
    return weights[:, :, 0, 0] if single and plain else None


def _flattens(graph: OnnxGraph, node: Node, batch: int | None, channels: int) -> bool:
    """Return whether a Reshape keeps batch (None: dynamic) and channels and flattens all cells."""
    if len(node.inputs) != 2:
        return False
    shape = graph.constant(node.inputs[1])
    if shape:
        literal = node.whole("allowzero") and 0 in shape
        return len(shape) == 3 and shape[0] in (0, -1, batch) and shape[1] in (0, channels) and not literal
    # Exports with dynamic sides compute the shape from the first two sides of the tensor and -1.
    sides = _made(graph, node.inputs[1], "Concat")
    if sides is None or len(sides.inputs) != 2 or list(graph.constant(sides.inputs[1])) != [-1]:
        return False
    first_two = _made(graph, sides.inputs[0], "Slice")
    measured = _made(graph, first_two.inputs[0], "Shape") if first_two else None
    if first_two is None or measured is None or measured.inputs != node.inputs[:1] or measured.attributes:
        return False
    return [list(graph.constant(name)) for name in first_two.inputs[1:3]] == [[0], [2]]


def _made(graph: OnnxGraph, name: str, op: str) -> Node | None:
    """Return the node that makes a tensor if its operator is ``op`` and it has an input; None otherwise."""
    node = graph.makers.get(name)
    return node if node is not None and node.op == op and node.inputs else None
