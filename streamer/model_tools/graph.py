"""Reads and edits the graph of a model for conversion, and finds its head.

The head joins boxes in pixels and scores of 0..1 in one tensor. One scale for both, or half precision for
pixels, would make one of them too coarse, so the head stays in float32.

Only files of `model_tools` import the package `onnx`; the service itself does not need it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx.shape_inference
import onnx.version_converter
from onnx import ModelProto, NodeProto, TensorProto

from inference.core.errors import ModelRefused
from streamer.model_zoo.download_url import CannotWrite

#: Operators with weights, which take most of the time.
LAYERS = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
#: Activation functions, which belong to the layer before them.
ACTIVATIONS = frozenset(
    {"Sigmoid", "HardSigmoid", "HardSwish", "Relu", "LeakyRelu", "Clip", "PRelu", "Elu", "Tanh"}
)
_RESHAPING = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze"})


class Topology:
    """Knows which node produces each tensor of a graph, and which nodes read it."""

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
    """Return the names of the head's nodes: those that no layer follows, and so the last layers as well."""
    topology = Topology(model)
    precedes_layer: dict[str, bool] = {}
    # In a valid graph, each node comes after the nodes that it reads from, so one backward pass is enough.
    for node in reversed(topology.nodes):
        readers = topology.readers_of(node)
        precedes_layer[node.name] = any(
            topology.is_layer(reader) or precedes_layer[reader.name] for reader in readers
        )
    return {name for name, precedes in precedes_layer.items() if not precedes}


#: Opset 13 introduced per-channel quantisation; exporters write 17 today.
LEAST_OPSET = 13
OPSET = 17
_LARGEST_BYTES = 2**31 - 1


def read_graph(path: Path) -> ModelProto:
    """Read a model with its external data. Raises ModelRefused."""
    try:
        return onnx.load(str(path))
    except Exception as error:
        raise ModelRefused(
            str(path),
            expected="an ONNX model that can be edited",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
            fix="Export it again, with its external data in the same folder.",
        ) from error


def write_graph(model: ModelProto, path: Path) -> None:
    """Write a model to one file and flush it to the disk. Raises CannotWrite."""
    if model.ByteSize() > _LARGEST_BYTES:
        raise CannotWrite(f"{path}: {model.ByteSize()} bytes; an ONNX file has at most {_LARGEST_BYTES}")
    try:
        with path.open("wb") as stream:
            stream.write(model.SerializeToString())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise CannotWrite(f"{path}: {error.strerror or error}") from error


def opset_of(model: ModelProto) -> int:
    """Return the version of the standard operators; 0 if none is imported."""
    return next((int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def with_newer_opset(model: ModelProto, path: Path) -> ModelProto:
    """Return the model in an opset that supports quantised weights. Raises ModelRefused."""
    if opset_of(model) >= LEAST_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:
        raise ModelRefused(
            str(path),
            expected=f"opset {LEAST_OPSET} or newer, or one that can be converted to {OPSET}",
            found=f"opset {opset_of(model)}, and the conversion failed: {' '.join(str(error).split())[:200]}",
            fix=f"Export it with opset {OPSET} (`opset={OPSET}`, `--opset {OPSET}`).",
        ) from error


def with_names(model: ModelProto) -> ModelProto:
    """Give every node a unique name, in place, because quantisation refers to nodes by name."""
    seen: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}_"
        seen.add(node.name)
    return model


def without_unused_opsets(model: ModelProto) -> ModelProto:
    """Remove the opsets that no node uses, in place, because ONNX Runtime writes all opsets that it knows."""
    used = {_domain(node.domain) for node in model.graph.node} | {""}
    kept = [entry for entry in model.opset_import if _domain(entry.domain) in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def metadata_of(model: ModelProto) -> dict[str, str]:
    """Return the metadata of a model."""
    return {entry.key: entry.value for entry in model.metadata_props}


def set_metadata(model: ModelProto, metadata: Mapping[str, str]) -> ModelProto:
    """Replace the metadata of a model, in place."""
    del model.metadata_props[:]
    for key, value in metadata.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return model


def float_tensors(model: ModelProto) -> set[str]:
    """Return the names of all float32 activations."""
    inferred = onnx.shape_inference.infer_shapes(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    return {
        value.name
        for values in (inferred.graph.value_info, inferred.graph.input, inferred.graph.output)
        for value in values
        if value.type.tensor_type.elem_type == TensorProto.FLOAT and value.name not in constants
    }
