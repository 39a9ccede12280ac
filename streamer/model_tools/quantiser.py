"""Inserts QuantizeLinear and DequantizeLinear into a graph; ONNX Runtime fuses them to 8-bit kernels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData

from streamer.model_tools.activation_ranges import Range
from streamer.model_tools.graph import float_tensors
from streamer.model_tools.head import LAYERS, head_of

#: Operators with an 8-bit kernel for CPUs in ONNX Runtime.
_OPERATORS = (
    *LAYERS,
    "Sigmoid",
    "Relu",
    "LeakyRelu",
    "Mul",
    "Add",
    "Concat",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Resize",
    "Slice",
    "Split",
)
#: Operators of which only the first input is an activation; the others are weights, shapes and bounds.
_ONE_INPUT = frozenset({"Resize", "Slice", "Split", *LAYERS})


@dataclass(frozen=True, slots=True)
class QuantisationPlan:
    """Nodes that can run in 8 bits, and the activations whose ranges must be known for that."""

    nodes: tuple[str, ...]
    tensors: tuple[str, ...]


def plan_of(model: ModelProto) -> QuantisationPlan:
    """Return what can be quantised: nodes with float32 activations, except the head."""
    head, floats = head_of(model), float_tensors(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    nodes, tensors = [], dict[str, None]()
    for node in model.graph.node:
        if node.op_type not in _OPERATORS or node.name in head:
            continue
        touched = _activations(node, constants)
        if touched and all(name in floats for name in touched):
            nodes.append(node.name)
            tensors |= dict.fromkeys(touched)
    return QuantisationPlan(tuple(nodes), tuple(tensors))


def _activations(node: NodeProto, constants: Collection[str]) -> list[str]:
    inputs = node.input[:1] if node.op_type in _ONE_INPUT else node.input
    if node.op_type in ("MatMul", "Gemm") and node.input[1] not in constants:
        inputs = node.input[:2]
    return [name for name in (*inputs, *node.output) if name and name not in constants]


def quantise(
    model: ModelProto, plan: QuantisationPlan, ranges: Mapping[str, Range], leave_out: Collection[str] = ()
) -> ModelProto:
    """Return the model in 8 bits, except for the nodes ``leave_out``.

    Weights have 7 bits and a scale for each channel. With 8 bits, sums of two products overflow the 16-bit
    accumulators of processors without VNNI.
    """
    copy = ModelProto()
    copy.CopyFrom(model)
    data = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in ranges.items()
    }
    quantiser = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=True,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, data),
        nodes_to_quantize=[name for name in plan.nodes if name not in leave_out],
        nodes_to_exclude=list(leave_out),
        op_types_to_quantize=list(_OPERATORS),
        extra_options={},
    )
    quantiser.quantize_model()
    quantiser.model.topological_sort()  # the quantiser appends nodes that others read
    result: ModelProto = quantiser.model.model
    return result
