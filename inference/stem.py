"""Takes the space-to-depth stem out of a model, because frames can be laid out like that as they are copied.

YOLOX and YOLOv5 up to 5.0 begin with `Focus`: four strided slices of the picture are put behind each other as
channels. In onnxruntime that walks the float picture twice, some 0.5 ms of YOLOX-nano's 7 on a CPU; while
the frame is converted from uint8 anyway, it costs 0.08 (tests/bench/model_side.py). The numbers that reach
the first convolution are the same, bit for bit.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inference import protobuf
from inference.protobuf import Field

#: Larger files are left as they are: the edited model is held in memory while it is loaded.
_MAX_BYTES = 512 << 20
#: Row and column of the pixel of each 2x2 block that a patch holds; any order of these.
_CORNERS = [(0, 0), (0, 1), (1, 0), (1, 1)]
#: Exports write "to the end" as the largest int64 or int32.
_TO_THE_END = (1 << 31) - 1

# Field numbers of onnx.proto3.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP, _NODE_ATTRIBUTE = 1, 2, 3, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TENSOR = 1, 3, 5
_TENSOR_TYPE, _TENSOR_INT32, _TENSOR_INT64, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_LOCATION = 2, 5, 7, 8, 9, 14
_INT32, _INT64 = 6, 7
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR, _TENSOR_SHAPE, _SHAPE_DIM, _DIM_VALUE = 1, 2, 1, 1
#: Operators with graphs of their own, which may read any tensor of the outer one.
_NESTING = frozenset(("If", "Loop", "Scan", "SequenceMap"))


@dataclass(frozen=True, slots=True)
class Stem:
    """A model that takes pictures in patches: (batch, 3 * 4, height / 2, width / 2)."""

    #: The file without the stem.
    model: bytes
    #: For each patch, in order: row and column (0 or 1) of its pixels in every block of 2x2.
    patches: tuple[tuple[int, int], ...]
    #: The image input, and the shape that the file declares for it; None is a dynamic dimension.
    image: str
    shape: tuple[int | None, ...]


@dataclass(slots=True, eq=False)
class _Node:
    op: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, list[Field]] = field(default_factory=dict)


@dataclass(slots=True)
class _Graph:
    fields: list[Field]
    #: By the position of its field.
    nodes: dict[int, _Node] = field(default_factory=dict)
    makers: dict[str, _Node] = field(default_factory=dict)
    readers: dict[str, list[_Node]] = field(default_factory=dict)
    tensors: dict[str, list[Field]] = field(default_factory=dict)
    inputs: dict[str, int] = field(default_factory=dict)
    outputs: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Trace:
    """What a concatenation of four patches was traced back to."""

    image: str
    patches: tuple[tuple[int, int], ...]
    #: Everything between the image and the concatenation.
    slices: tuple[_Node, ...]


def find_stem(path: Path) -> Stem | None:
    """Return the model of an ONNX file without its space-to-depth stem; None when it has none.

    Also None where the file is no ONNX file, is damaged, or keeps weights in other files: onnxruntime judges
    those by itself.
    """
    try:
        if not 0 < path.stat().st_size <= _MAX_BYTES:
            return None
        with path.open("rb") as stream:
            # Unmapped when the last view of it is gone, which an exception may keep for a while.
            return _take_out(memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)))
    except (OSError, ValueError, struct.error):
        return None


def _take_out(view: memoryview) -> Stem | None:
    model = list(protobuf.fields(view))
    graphs = [content for number, _, _, content in model if number == _MODEL_GRAPH]
    graph = _read_graph(graphs[0]) if len(graphs) == 1 else None
    if graph is None:
        return None
    traced = ((node, _trace(graph, node)) for node in graph.nodes.values() if node.op == "Concat")
    concat, found = next(((node, trace) for node, trace in traced if trace is not None), (None, None))
    if concat is None or found is None:
        return None
    value = graph.fields[graph.inputs[found.image]][3]
    shape = _shape_of(value)
    # Sides that do not come in twos have no such stem; one of another number of planes is not for us.
    if len(shape) != 4 or shape[1] not in (3, None) or any(side and side % 2 for side in shape[2:]):
        return None
    # The tensor keeps its name for whoever reads it; onnxruntime drops the node.
    instead: dict[int, bytes] = {graph.inputs[found.image]: _written_input(value)}
    for position, node in graph.nodes.items():
        if node is concat:
            instead[position] = _identity(found.image, node.outputs[0])
        elif any(node is gone for gone in found.slices):
            instead[position] = b""
    edited = [instead.get(position, raw) for position, (_, raw, _, _) in enumerate(graph.fields)]
    parts = [
        protobuf.write_bytes(_MODEL_GRAPH, *edited) if number == _MODEL_GRAPH else raw
        for number, raw, _, _ in model
    ]
    return Stem(b"".join(parts), found.patches, found.image, shape)


def _read_graph(content: memoryview) -> _Graph | None:
    """Return the graph, unread where it is large; None when it is of a kind that is better left alone."""
    graph = _Graph(list(protobuf.fields(content)))
    for position, (number, _, _, inner) in enumerate(graph.fields):
        if number == _GRAPH_NODE:
            node = _read_node(inner)
            if node.op in _NESTING:
                return None
            graph.nodes[position] = node
            graph.makers.update(dict.fromkeys(node.outputs, node))
            for name in node.inputs:
                graph.readers.setdefault(name, []).append(node)
        elif number == _GRAPH_INITIALIZER:
            tensor = list(protobuf.fields(inner))
            if any(number == _TENSOR_LOCATION and value for number, _, value, _ in tensor):
                return None
            graph.tensors.update((_text(part), tensor) for n, _, _, part in tensor if n == _TENSOR_NAME)
        elif number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
            name = next((_text(part) for n, _, _, part in protobuf.fields(inner) if n == _VALUE_NAME), "")
            if number == _GRAPH_INPUT:
                graph.inputs[name] = position
            else:
                graph.outputs.add(name)
    return graph


def _read_node(content: memoryview) -> _Node:
    node = _Node()
    for number, _, _, inner in protobuf.fields(content):
        if number == _NODE_INPUT:
            node.inputs.append(_text(inner))
        elif number == _NODE_OUTPUT:
            node.outputs.append(_text(inner))
        elif number == _NODE_OP:
            node.op = _text(inner)
        elif number == _NODE_ATTRIBUTE:
            attribute = list(protobuf.fields(inner))
            name = next((_text(part) for n, _, _, part in attribute if n == _ATTRIBUTE_NAME), "")
            node.attributes[name] = attribute
    return node


def _trace(graph: _Graph, concat: _Node) -> _Trace | None:
    """Follow what is concatenated back to the image.

    None unless the four patches are the four corners of every 2x2 block, and nobody else reads the image.
    """
    if _number(concat, "axis") not in (1, -3) or len(concat.outputs) != 1:
        return None
    images: set[str] = set()
    patches: list[tuple[int, int]] = []
    slices: list[_Node] = []
    for branch in concat.inputs:
        name, first, step = branch, [0, 0], [1, 1]
        # Every slice that fits doubles a step, so this ends in a damaged file too, where one feeds itself.
        while step != [2, 2]:
            node = graph.makers.get(name)
            cuts = _cuts(graph, node) if node is not None else []
            if node is None or not cuts or max(step) > 2:
                return None
            for axis, start, stride in cuts:
                first[axis] += start * step[axis]
                step[axis] *= stride
            slices.append(node)
            name = node.inputs[0]
        images.add(name)
        patches.append((first[0], first[1]))
    if len(images) != 1 or sorted(patches) != _CORNERS:
        return None
    (image,) = images
    gone = {id(node) for node in (concat, *slices)}
    read = [image, *(name for node in slices for name in node.outputs)]
    kept = any(id(reader) not in gone for name in read for reader in graph.readers.get(name, ()))
    if kept or image not in graph.inputs or image in graph.tensors or graph.outputs.intersection(read):
        return None
    return _Trace(image, tuple(patches), tuple(slices))


def _cuts(graph: _Graph, node: _Node) -> list[tuple[int, int, int]]:
    """Return along which axes (0 rows, 1 columns) a node takes every second row or column, from which on.

    Empty if it does anything else. Each is axis, start and step.
    """
    if node.op != "Slice" or len(node.inputs) != 5:
        return []
    starts, ends, axes, steps = (_constant(graph, name) for name in node.inputs[1:])
    if not len(starts) == len(ends) == len(axes) == len(steps):
        return []
    cuts = [(axis % 4 - 2, start, step) for axis, start, step in zip(axes, starts, steps, strict=True)]
    fit = all(axis in (0, 1) and start in (0, 1) and step == 2 for axis, start, step in cuts)
    return cuts if fit and all(end >= _TO_THE_END for end in ends) else []


def _constant(graph: _Graph, name: str) -> Sequence[int]:
    """Return a list of whole numbers that stands in the file; empty if it is something else."""
    tensor = graph.tensors.get(name)
    maker = graph.makers.get(name)
    if tensor is None and maker is not None and maker.op == "Constant":
        attribute = maker.attributes.get("value", [])
        tensor = next(
            (list(protobuf.fields(part)) for n, _, _, part in attribute if n == _ATTRIBUTE_TENSOR), None
        )
    if tensor is None:
        return []
    kind = next((value for n, _, value, _ in tensor if n == _TENSOR_TYPE), 0)
    if kind not in (_INT32, _INT64):
        return []
    code, unpacked = ("i", _TENSOR_INT32) if kind == _INT32 else ("q", _TENSOR_INT64)
    numbers: list[int] = []
    for number, _, value, part in tensor:
        if number == _TENSOR_RAW:
            numbers += struct.unpack(f"<{len(part) // struct.calcsize(code)}{code}", part)
        elif number == unpacked:
            numbers += protobuf.varints(part) if part else [protobuf.signed(value)]
    return numbers


def _number(node: _Node, name: str) -> int | None:
    attribute = node.attributes.get(name, [])
    return next((protobuf.signed(value) for n, _, value, _ in attribute if n == _ATTRIBUTE_INT), None)


def _identity(source: str, target: str) -> bytes:
    return protobuf.write_bytes(
        _GRAPH_NODE,
        protobuf.write_bytes(_NODE_INPUT, source.encode()),
        protobuf.write_bytes(_NODE_OUTPUT, target.encode()),
        protobuf.write_bytes(_NODE_NAME, b"picture_in_patches"),
        protobuf.write_bytes(_NODE_OP, b"Identity"),
    )


def _shape_of(value: memoryview) -> tuple[int | None, ...]:
    """Return the shape of a declared tensor; empty when none is declared."""
    dims = _inside(value, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE, _SHAPE_DIM)
    return tuple(_side_of(dim) or None for dim in dims)


def _inside(message: memoryview, *path: int) -> list[memoryview]:
    """Return the messages that are reached by these fields, one within the other."""
    found = [message]
    for wanted in path:
        found = [inner for outer in found for n, _, _, inner in protobuf.fields(outer) if n == wanted]
    return found


def _written_input(value: memoryview) -> bytes:
    """Return the image input of a graph, whose ``value`` declares pictures, for their patches."""
    (kind,) = _inside(value, _VALUE_TYPE, _TYPE_TENSOR)
    batch, _, height, width = _inside(kind, _TENSOR_SHAPE, _SHAPE_DIM)
    sides = [
        protobuf.write_bytes(_SHAPE_DIM, batch),
        _side(12),
        _side_of_patch(height),
        _side_of_patch(width),
    ]
    tensor = [bytes(raw) for n, raw, _, _ in protobuf.fields(kind) if n != _TENSOR_SHAPE]
    written = protobuf.write_bytes(_TYPE_TENSOR, *tensor, protobuf.write_bytes(_TENSOR_SHAPE, *sides))
    others = [raw for n, raw, _, _ in protobuf.fields(value) if n != _VALUE_TYPE]
    return protobuf.write_bytes(_GRAPH_INPUT, *others, protobuf.write_bytes(_VALUE_TYPE, written))


def _side_of(dim: memoryview) -> int:
    """Return a declared side; 0 when it is dynamic."""
    return next((value for n, _, value, _ in protobuf.fields(dim) if n == _DIM_VALUE), 0)


def _side_of_patch(dim: memoryview) -> bytes:
    side = _side_of(dim)
    return _side(side // 2) if side else protobuf.write_bytes(_SHAPE_DIM)


def _side(value: int) -> bytes:
    return protobuf.write_bytes(_SHAPE_DIM, protobuf.write_varint(_DIM_VALUE, value))


def _text(content: memoryview) -> str:
    return bytes(content).decode()
