"""Finds a detector's head in its graph: the last layers, and the arithmetic that decodes their outputs.

The head joins boxes in pixels and scores of 0..1 in one tensor. One scale for both, or half precision for
pixels, would make one of them too coarse, so the head stays in float32.
"""

from __future__ import annotations

from collections import defaultdict

from onnx import ModelProto, NodeProto

#: Operators with weights, which take most of the time.
LAYERS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
#: Activation functions, which belong to the layer before them.
ACTIVATIONS = frozenset(
    {"Sigmoid", "HardSigmoid", "HardSwish", "Relu", "LeakyRelu", "Clip", "PRelu", "Elu", "Tanh"}
)
_RESHAPING = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze"})


class Topology:
    """Which node produces each tensor of a graph, and which nodes read it."""

    def __init__(self, model: ModelProto) -> None:
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.constants = {tensor.name for tensor in model.graph.initializer}
        self.producer: dict[str, NodeProto] = {}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.output:
                self.producer[name] = node
            for name in node.input:
                self.readers[name].append(node)

    def readers_of(self, node: NodeProto) -> list[NodeProto]:
        """Return the nodes that read an output of ``node``."""
        return [reader for name in node.output for reader in self.readers[name]]

    def is_layer(self, node: NodeProto) -> bool:
        """Return whether a node has weights.

        The convolution that computes the mean of a distribution in YOLOv8 and its successors does not count:
        it follows a softmax, and its weights are 0, 1, 2 ….
        """
        if node.op_type not in LAYERS or len(node.input) < 2 or node.input[1] not in self.constants:
            return False
        before = self.producer.get(node.input[0])
        while before is not None and before.op_type in _RESHAPING:
            before = self.producer.get(before.input[0])
        return before is None or before.op_type != "Softmax"

    def unit_of(self, layer: NodeProto) -> set[str]:
        """Return the names of a layer and of its activation function; SiLU consists of two nodes."""
        names = {layer.name}
        for reader in self.readers_of(layer):
            if reader.op_type in ACTIVATIONS:
                names.add(reader.name)
                names |= {node.name for node in self.readers_of(reader) if node.op_type == "Mul"}
        return names


def layers_of(model: ModelProto) -> list[NodeProto]:
    """Return the nodes that have weights, in the graph's order."""
    topology = Topology(model)
    return [node for node in topology.nodes if topology.is_layer(node)]


def head_of(model: ModelProto) -> set[str]:
    """Return the names of the last layers and of all nodes that no further layer follows."""
    topology = Topology(model)
    precedes_layer: dict[str, bool] = {}
    # In a valid graph nodes come after those that they read, so one backward pass is enough.
    for node in reversed(topology.nodes):
        readers = topology.readers_of(node)
        precedes_layer[node.name] = any(
            topology.is_layer(reader) or precedes_layer[reader.name] for reader in readers
        )
    return {name for name, precedes in precedes_layer.items() if not precedes}
