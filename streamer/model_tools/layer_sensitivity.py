"""Ranks layers by how much 8 bits harm the outputs: it rounds one layer at a time and measures the error.

A single graph contains the rounding of every layer, and an additional input selects the layer that is
rounded. The graph is therefore built and loaded only once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from inference.models.layout import Layout, OutputForm
from inference.models.model import Family
from streamer.model_tools.graph import write_graph
from streamer.model_tools.model_inputs import Feed, open_session
from streamer.model_tools.quantiser import Range, scale_of

Arrays = Sequence[npt.NDArray[Any]]

#: Name of the additional input: the number of the layer that is rounded, -1 for none.
SWITCH = "rounded_layer"
#: Steps of a weight on either side of zero, because `quantiser` uses 7 bits for weights.
_WEIGHT_STEPS = 63
#: Time that ranking may take, in seconds. A large model is ranked on fewer images to stay within it, but on
#: at least one.
_BUDGET_S = 120.0


def rank_layers(
    model: ModelProto,
    layers: Sequence[str],
    ranges: Mapping[str, Range],
    feeds: Sequence[Feed],
    layout: Layout,
    *,
    scratch: Path,
    on_layer: Callable[[int], None],
) -> list[str]:
    """Return the names of ``layers``, the most sensitive first.

    ``scratch`` is a path for a temporary model. ``on_layer`` is called with the number of layers done.
    """
    write_graph(with_rounding_switch(model, layers, ranges), scratch)
    session = open_session(scratch)
    names = list(layout.outputs)

    def run(layer: int) -> list[list[npt.NDArray[np.float64]]]:
        switch = {SWITCH: np.array(layer, np.int64)}
        return [groups_of(layout, session.run(names, feed | switch)) for feed in kept]

    kept = feeds[:1]
    begun = time.perf_counter()
    run(-1)
    each_s = time.perf_counter() - begun
    kept = feeds[: max(1, int(_BUDGET_S / (each_s * len(layers))))]
    expected = run(-1)
    errors = []
    for index, name in enumerate(layers):
        errors.append((_error(expected, run(index)), name))
        on_layer(index + 1)
    return [name for _, name in sorted(errors, key=lambda item: -item[0])]


def groups_of(layout: Layout, outputs: Arrays) -> list[npt.NDArray[np.float64]]:
    """Return boxes and scores separately, because errors in pixels and errors of scores must not be added."""
    arrays = [np.asarray(array, np.float64) for array in outputs]
    if layout.form is OutputForm.JOINED or layout.transposed:
        return [arrays[0][..., :4], arrays[0][..., 4:]]
    match layout.family:
        case Family.YOLO:
            return [arrays[0][:, :4], arrays[0][:, 4:]]
        case Family.YOLOX | Family.YOLOV5 | Family.YOLO_END2END:
            return [arrays[0][..., :4], arrays[0][..., 4:]]
    return arrays


def _error(expected: Sequence[Arrays], found: Sequence[Arrays]) -> float:
    """Return the sum over groups of the mean squared error divided by the variance; infinity if it is NaN."""
    total = 0.0
    for expected_groups, found_groups in zip(expected, found, strict=True):
        for true, other in zip(expected_groups, found_groups, strict=True):
            if true.shape != other.shape:
                return float("inf")  # the models return different numbers of rows
            total += float(np.mean((true - other) ** 2) / max(float(np.var(true)), 1e-12))
    return total if np.isfinite(total) else float("inf")


def with_rounding_switch(model: ModelProto, layers: Sequence[str], ranges: Mapping[str, Range]) -> ModelProto:
    """Return the model with the additional input `SWITCH`.

    If its value is i, the model rounds input, weights and output of layer i.
    """
    result = ModelProto()
    result.CopyFrom(model)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in result.graph.initializer}
    numbers = {name: index for index, name in enumerate(layers)}
    parts = [
        _switched_layer(node, numbers[node.name], weights, ranges)
        if node.name in numbers
        else _Part([_copy(node)])
        for node in result.graph.node
    ]
    del result.graph.node[:]
    for part in parts:
        result.graph.node.extend(part.nodes)
        result.graph.initializer.extend(part.constants)
    result.graph.input.append(helper.make_tensor_value_info(SWITCH, TensorProto.INT64, []))
    return result


@dataclass(slots=True)
class _Part:
    """Collects nodes, and the constants that they need."""

    nodes: list[NodeProto]
    constants: list[TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, operator: str, inputs: Iterable[str], output: str) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=f"{output}_node"))
        return output

    def rounded(self, name: str, part: Range | None, tag: str) -> str:
        """Add nodes that round tensor ``name`` to 8 bits, and return the name of their output.

        Returns ``name`` itself if its range is unknown.
        """
        if part is None:
            return name
        step, zero = scale_of(part)
        scale = [
            self.constant(f"{tag}_step", np.array(step, np.float32)),
            self.constant(f"{tag}_zero", np.array(zero, np.uint8)),
        ]
        bits = self.node("QuantizeLinear", [name, *scale], f"{tag}_bits")
        return self.node("DequantizeLinear", [bits, *scale], f"{tag}_back")


def _switched_layer(
    layer: NodeProto, number: int, weights: Mapping[str, npt.NDArray[Any]], ranges: Mapping[str, Range]
) -> _Part:
    tag, part, copy = f"switched_{number}", _Part([]), _copy(layer)
    x, weight, y = layer.input[0], layer.input[1], layer.output[0]
    on = part.node("Equal", [SWITCH, part.constant(f"{tag}_number", np.array(number, np.int64))], f"{tag}_on")
    channels = 1 if layer.op_type in ("MatMul", "ConvTranspose") else 0
    coarse = part.constant(f"{tag}_coarse", round_weights(weights[weight], channels))
    rounded_x = part.rounded(x, ranges.get(x), f"{tag}_in")
    copy.input[0] = part.node("Where", [on, rounded_x, x], f"{tag}_x")
    copy.input[1] = part.node("Where", [on, coarse, weight], f"{tag}_w")
    copy.output[0] = f"{tag}_y"
    part.nodes.append(copy)
    rounded_y = part.rounded(copy.output[0], ranges.get(y), f"{tag}_out")
    part.node("Where", [on, rounded_y, copy.output[0]], y)
    return part


def round_weights(weights: npt.NDArray[Any], axis: int) -> npt.NDArray[np.float32]:
    """Return weights after quantisation to 7 bits with a scale for each channel along ``axis``."""
    others = tuple(index for index in range(weights.ndim) if index != axis)
    step = np.maximum(np.abs(weights).max(axis=others, keepdims=True) / _WEIGHT_STEPS, 1e-12)
    return np.asarray(np.round(weights / step) * step, np.float32)


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
