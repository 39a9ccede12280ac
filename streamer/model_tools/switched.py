"""A graph in which one layer at a time can be rounded to 8 bits, by a switch that is one more input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from streamer.model_tools.ranges import Range, scale_of

#: Name of the further input: the number of the layer that is rounded, -1 for none.
SWITCH = "rounded_layer"
#: Steps of a weight on either side of zero; see `quantiser`.
_WEIGHT_STEPS = 63


def switched(model: ModelProto, layers: Sequence[str], ranges: Mapping[str, Range]) -> ModelProto:
    """Return the model with a switch: input, weights and output of layer i are rounded while it says i."""
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
    """Nodes with the constants that they need."""

    nodes: list[NodeProto]
    constants: list[TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def node(self, operator: str, inputs: Iterable[str], output: str) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=f"{output}_node"))
        return output

    def rounded(self, name: str, part: Range | None, tag: str) -> str:
        """Return the tensor ``name`` rounded to 8 bits; itself where its range is not known."""
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
    given, weight, made = layer.input[0], layer.input[1], layer.output[0]
    on = part.node("Equal", [SWITCH, part.constant(f"{tag}_number", np.array(number, np.int64))], f"{tag}_on")
    channels = 1 if layer.op_type in ("MatMul", "ConvTranspose") else 0
    coarse = part.constant(f"{tag}_coarse", round_weights(weights[weight], channels))
    given_rounded = part.rounded(given, ranges.get(given), f"{tag}_in")
    copy.input[0] = part.node("Where", [on, given_rounded, given], f"{tag}_x")
    copy.input[1] = part.node("Where", [on, coarse, weight], f"{tag}_w")
    copy.output[0] = f"{tag}_made"
    part.nodes.append(copy)
    made_rounded = part.rounded(copy.output[0], ranges.get(made), f"{tag}_out")
    part.node("Where", [on, made_rounded, copy.output[0]], made)
    return part


def round_weights(weights: npt.NDArray[Any], axis: int) -> npt.NDArray[np.float32]:
    """Return weights as 7 bits with a scale for each channel, along ``axis``, would keep them."""
    others = tuple(index for index in range(weights.ndim) if index != axis)
    step = np.maximum(np.abs(weights).max(axis=others, keepdims=True) / _WEIGHT_STEPS, 1e-12)
    return np.asarray(np.round(weights / step) * step, np.float32)


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
