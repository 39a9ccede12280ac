"""Converts a model to half precision: inputs, outputs and the head stay in float32.

ONNX Runtime's converter is not used: it also rounds tensors between two nodes that it was told to keep in
float32, which would round boxes to half a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from streamer.model_tools.graph import Topology, float_tensors, head_of

#: Operators that have no float16 kernel on CUDA or the CPU, or whose values exceed the range of float16.
_FLOAT32_ONLY = frozenset(
    {
        "CumSum",
        "GridSample",
        "Loop",
        "If",
        "Scan",
        "Max",
        "Min",
        "NonMaxSuppression",
        "Range",
        "RoiAlign",
        "TopK",
    }
)
#: Indices of the inputs that are always float32, by operator.
_FLOAT32_INPUTS = {"Resize": (1, 2)}
_LARGEST = float(np.finfo(np.float16).max)
_GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


def to_float16(model: ModelProto) -> ModelProto:
    """Return the model in half precision, except for the head and the nodes that require float32.

    Inputs and outputs keep their types, because the service fills and reads them. ``model`` has unique node
    names.
    """
    result = ModelProto()
    result.CopyFrom(model)
    conversion = _Conversion(result)
    nodes = [part for node in conversion.topology.nodes for part in conversion.convert(node)]
    graph = result.graph
    used = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
    constants = [tensor for tensor in graph.initializer if tensor.name in used | conversion.captured]
    constants += conversion.constants
    del graph.node[:], graph.initializer[:], graph.value_info[:]  # value_info contains the old types
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    return result


class _Conversion:
    """Converts one graph, node by node in the order of the graph."""

    def __init__(self, model: ModelProto) -> None:
        self.topology = Topology(model)
        self.constants: list[TensorProto] = []
        self._floats = float_tensors(model)
        self._weights = {
            tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT
        }
        self._head = head_of(model)
        #: Tensors that subgraphs read by name, and that must therefore stay float32.
        self.captured = set(_captured(self.topology.nodes))
        #: Tensors whose producers compute in float32: the captured ones and the outputs.
        self._fixed = self.captured | {value.name for value in model.graph.output}
        #: Name of each tensor's copy in the other precision, by the tensor's name; copies are made on demand.
        self._casts: dict[str, str] = {}

    def convert(self, node: NodeProto) -> Iterator[NodeProto]:
        """Yield the casts that the node needs, then the node in its precision."""
        float32 = self._is_float32(node)
        copy = NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(node.input):
            if index in _FLOAT32_INPUTS.get(node.op_type, ()):
                continue
            if name in self._weights:
                copy.input[index] = name if float32 else self._half_weight(name)
            elif name in self._floats and self._is_float32(self.topology.producer.get(name)) != float32:
                yield from self._cast(name, float32=float32)
                copy.input[index] = self._casts[name]
        if not float32:
            _attributes_to_float16(copy)
        yield copy

    def _is_float32(self, node: NodeProto | None) -> bool:
        """Return whether a node computes in float32. None stands for an input of the graph."""
        if node is None or node.name in self._head or node.op_type in _FLOAT32_ONLY:
            return True
        return any(name in self._fixed for name in node.output)

    def _half_weight(self, name: str) -> str:
        half = f"{name}_half"
        if half not in self._casts:
            self._casts[half] = half
            values = numpy_helper.to_array(self._weights[name])
            clipped = np.clip(values, -_LARGEST, _LARGEST).astype(np.float16)
            self.constants.append(numpy_helper.from_array(clipped, half))
        return half

    def _cast(self, name: str, *, float32: bool) -> Iterator[NodeProto]:
        if name not in self._casts:
            self._casts[name] = f"{name}_{'single' if float32 else 'half'}"
            kind = TensorProto.FLOAT if float32 else TensorProto.FLOAT16
            yield helper.make_node(
                "Cast", [name], [self._casts[name]], name=f"{self._casts[name]}_cast", to=kind
            )


def _captured(nodes: list[NodeProto]) -> Iterator[str]:
    """Yield the names that subgraphs read. Some are of tensors inside the subgraph, which does no harm."""
    for node in nodes:
        for attribute in node.attribute:
            for graph in [attribute.g, *attribute.graphs] if attribute.type in _GRAPHS else []:
                for inner in graph.node:
                    yield from inner.input
                yield from _captured(list(graph.node))


def _attributes_to_float16(node: NodeProto) -> None:
    """Convert float32 constants in a node's attributes, and the target type of a Cast, in place."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
            values = np.clip(numpy_helper.to_array(attribute.t), -_LARGEST, _LARGEST)
            attribute.t.CopyFrom(numpy_helper.from_array(values.astype(np.float16), attribute.t.name))
        elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
