"""Finds a detector's head in its graph: the last layers, and the arithmetic that makes rows of their outputs.

Boxes in pixels and scores of 0..1 meet there in one tensor. One scale for both, or half precision for pixels,
would spoil one of them, so the head is left as it is.
"""

from __future__ import annotations

from collections import defaultdict

from onnx import ModelProto, NodeProto

#: Operators that carry weights, where the time goes.
LAYERS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
#: Operators that follow a layer and belong to it.
ACTIVATIONS = frozenset(
    {"Sigmoid", "HardSigmoid", "HardSwish", "Relu", "LeakyRelu", "Clip", "PRelu", "Elu", "Tanh"}
)
_RESHAPING = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze"})


class Wiring:
    """Who makes and who reads each tensor of a graph."""

    def __init__(self, model: ModelProto) -> None:
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.constants = {tensor.name for tensor in model.graph.initializer}
        self.maker: dict[str, NodeProto] = {}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.output:
                self.maker[name] = node
            for name in node.input:
                self.readers[name].append(node)

    def readers_of(self, node: NodeProto) -> list[NodeProto]:
        """Return the nodes that read an output of ``node``."""
        return [reader for name in node.output for reader in self.readers[name]]

    def is_layer(self, node: NodeProto) -> bool:
        """Return whether a node carries weights of its own.

        The convolution with which YOLOv8 and its like take the mean of a distribution does not count: its
        weights are 0, 1, 2 …, behind a softmax.
        """
        if node.op_type not in LAYERS or len(node.input) < 2 or node.input[1] not in self.constants:
            return False
        before = self.maker.get(node.input[0])
        while before is not None and before.op_type in _RESHAPING:
            before = self.maker.get(before.input[0])
        return before is None or before.op_type != "Softmax"

    def unit_of(self, layer: NodeProto) -> set[str]:
        """Return the names of a layer and of the activation behind it, SiLU's two nodes included."""
        names = {layer.name}
        for reader in self.readers_of(layer):
            if reader.op_type in ACTIVATIONS:
                names.add(reader.name)
                names |= {node.name for node in self.readers_of(reader) if node.op_type == "Mul"}
        return names


def layers_of(model: ModelProto) -> list[NodeProto]:
    """Return the nodes that carry weights, in the graph's order."""
    wiring = Wiring(model)
    return [node for node in wiring.nodes if wiring.is_layer(node)]


def head_of(model: ModelProto) -> set[str]:
    """Return the names of all nodes from which no further layer is reached, the last layers among them."""
    wiring = Wiring(model)
    leads_on: dict[str, bool] = {}
    # Nodes of a valid graph come after those that they read, so one pass from behind will do.
    for node in reversed(wiring.nodes):
        readers = wiring.readers_of(node)
        leads_on[node.name] = any(wiring.is_layer(reader) or leads_on[reader.name] for reader in readers)
    return {name for name, further in leads_on.items() if not further}
