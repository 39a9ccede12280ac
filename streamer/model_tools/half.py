"""Half precision: weights and arithmetic in float16; inputs, outputs and the head stay in float32.

Written here because onnxruntime's converter rounds every tensor between two nodes that it was told to spare,
so that boxes would come in halves of a pixel after all.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from streamer.model_tools.graph import float_tensors
from streamer.model_tools.head import Wiring, head_of

#: Operators that have no float16 form on CUDA or on the CPU, or count in numbers that it cannot hold.
_SINGLE_ONLY = frozenset(
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
#: Inputs, by operator, that are float32 whatever the first one is.
_SINGLE_INPUTS = {"Resize": (1, 2)}
_LARGEST = float(np.finfo(np.float16).max)
_GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


def to_half(model: ModelProto) -> ModelProto:
    """Return the model in half precision, but for the head and what only float32 will do for.

    Inputs and outputs keep their types, as the service fills and reads them. ``model`` has named nodes.
    """
    result = ModelProto()
    result.CopyFrom(model)
    halved = _Halving(result)
    nodes = [part for node in halved.wiring.nodes for part in halved.convert(node)]
    graph = result.graph
    used = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
    constants = [tensor for tensor in graph.initializer if tensor.name in used | halved.captured]
    constants += halved.constants
    del graph.node[:], graph.initializer[:], graph.value_info[:]  # their types are those of before
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    return result


class _Halving:
    """The conversion of one graph, node by node in its order."""

    def __init__(self, model: ModelProto) -> None:
        self.wiring = Wiring(model)
        self.constants: list[TensorProto] = []
        self._floats = float_tensors(model)
        self._weights = {
            tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT
        }
        self._single = head_of(model)
        #: Tensors that inner graphs read by name, so that they must stay as they are.
        self.captured = set(_captured(self.wiring.nodes))
        #: Tensors whose makers compute in float32: those, and the outputs.
        self._fixed = self.captured | {value.name for value in model.graph.output}
        #: Tensor to its copy in the other precision, once there is one.
        self._casts: dict[str, str] = {}

    def convert(self, node: NodeProto) -> Iterator[NodeProto]:
        """Yield the node in its precision, behind the casts that it needs."""
        single = self._is_single(node)
        copy = NodeProto()
        copy.CopyFrom(node)
        for index, name in enumerate(node.input):
            if index in _SINGLE_INPUTS.get(node.op_type, ()):
                continue
            if name in self._weights:
                copy.input[index] = name if single else self._half_weight(name)
            elif name in self._floats and self._is_single(self.wiring.maker.get(name)) != single:
                yield from self._cast(name, single=single)
                copy.input[index] = self._casts[name]
        if not single:
            _halve_attributes(copy)
        yield copy

    def _is_single(self, node: NodeProto | None) -> bool:
        """Return whether a node computes in float32; None is a graph's input."""
        if node is None or node.name in self._single or node.op_type in _SINGLE_ONLY:
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

    def _cast(self, name: str, *, single: bool) -> Iterator[NodeProto]:
        if name not in self._casts:
            self._casts[name] = f"{name}_{'single' if single else 'half'}"
            kind = TensorProto.FLOAT if single else TensorProto.FLOAT16
            yield helper.make_node(
                "Cast", [name], [self._casts[name]], name=f"{self._casts[name]}_cast", to=kind
            )


def _captured(nodes: list[NodeProto]) -> Iterator[str]:
    """Yield the names that graphs inside of nodes read; some are their own, which does no harm."""
    for node in nodes:
        for attribute in node.attribute:
            for graph in [attribute.g, *attribute.graphs] if attribute.type in _GRAPHS else []:
                for inner in graph.node:
                    yield from inner.input
                yield from _captured(list(graph.node))


def _halve_attributes(node: NodeProto) -> None:
    """Make float32 constants of a node, and the type that it casts to, half, in place."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
            values = np.clip(numpy_helper.to_array(attribute.t), -_LARGEST, _LARGEST)
            attribute.t.CopyFrom(numpy_helper.from_array(values.astype(np.float16), attribute.t.name))
        elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
