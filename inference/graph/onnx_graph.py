"""Reads the graph of an ONNX file and edits it before it is loaded: which nodes make and read each tensor.

It implements only the necessary part of onnx.proto3, and reads no weights but those that an edit needs. No
process of the service loads the ``onnx`` package.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference.graph import protobuf
from inference.graph.protobuf import Field

# Field numbers of onnx.proto3.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_NAME, _NODE_OP, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 3, 4, 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TEXT, _ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH = 1, 3, 4, 5, 6
_ATTRIBUTE_INTS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_TYPE = 8, 11, 20
_TYPE_INT, _TYPE_INTS = 2, 7
_TENSOR_SIDES, _TENSOR_TYPE, _TENSOR_FLOAT, _TENSOR_INT32, _TENSOR_INT64 = 1, 2, 4, 5, 7
_TENSOR_NAME, _TENSOR_RAW, _TENSOR_LOCATION = 8, 9, 14
_FLOAT, _UINT8, _INT32, _INT64, _HALF = 1, 2, 6, 7, 10
#: Element types by their NumPy names.
ELEMENTS = {"float32": _FLOAT, "uint8": _UINT8, "int64": _INT64, "float16": _HALF}
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR, _TENSOR_ELEMENT, _TENSOR_SHAPE, _SHAPE_DIM, _DIM_VALUE = 1, 1, 2, 1, 1
#: Domains of the standard operators. Operators of other domains may do anything under the same names.
_OWN_DOMAINS = ("", "ai.onnx")
#: Longest constant list of integers, such as axes, starts or sizes, that is read.
_MAX_LIST_BYTES = 128

#: Larger files are not edited, because the edited model is held in memory while it is loaded.
_MAX_FILE_BYTES = 512 << 20

#: Declared sides; None for a dynamic one.
Shape = tuple[int | None, ...]


@dataclass(slots=True, eq=False)
class Node:
    """Holds one operator. ``raw`` is its encoded field in the graph, from the file or newly written."""

    raw: bytes | memoryview
    #: Name of the operator; empty for operators that ONNX does not define.
    op: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, list[Field]] = field(default_factory=dict)

    def whole(self, name: str) -> int | None:
        """Return an integer attribute; None if the node does not have it."""
        attribute = self.attributes.get(name, [])
        return next((protobuf.signed(value) for n, _, value, _ in attribute if n == _ATTRIBUTE_INT), None)

    @property
    def pads_itself(self) -> bool:
        """Whether a convolution or pool computes its padding and ignores its ``pads``."""
        attribute = self.attributes.get("auto_pad", [])
        return any(n == _ATTRIBUTE_TEXT and _text(content) != "NOTSET" for n, _, _, content in attribute)

    def int_list(self, name: str) -> list[int]:
        """Return an attribute that is a list of integers; empty if the node does not have it."""
        found: list[int] = []
        for number, _, value, content in self.attributes.get(name, []):
            if number == _ATTRIBUTE_INTS:
                found += protobuf.varints(content) if content else [protobuf.signed(value)]
        return found


def make_node(op: str, sources: str | Sequence[str], target: str, **attributes: int | Sequence[int]) -> Node:
    """Return a node that makes one tensor. Attributes are integers of at least 0, or lists of them."""
    inputs = [sources] if isinstance(sources, str) else list(sources)
    parts = [
        *(protobuf.write_bytes(_NODE_INPUT, name.encode()) for name in inputs),
        protobuf.write_bytes(_NODE_OUTPUT, target.encode()),
        protobuf.write_bytes(_NODE_NAME, f"{target}_edited".encode()),
        protobuf.write_bytes(_NODE_OP, op.encode()),
    ]
    for name, value in attributes.items():
        if isinstance(value, int):
            kind, numbers = _TYPE_INT, [protobuf.write_varint(_ATTRIBUTE_INT, value)]
        else:
            kind, numbers = _TYPE_INTS, [protobuf.write_varint(_ATTRIBUTE_INTS, number) for number in value]
        parts.append(
            protobuf.write_bytes(
                _NODE_ATTRIBUTE,
                protobuf.write_bytes(_ATTRIBUTE_NAME, name.encode()),
                *numbers,
                protobuf.write_varint(_ATTRIBUTE_TYPE, kind),
            )
        )
    return Node(protobuf.write_bytes(_GRAPH_NODE, *parts), op, inputs, [target])


class OnnxGraph:
    """Holds the graph of a model. Raises ValueError or struct.error when the file is damaged.

    ``makers``, ``readers`` and ``tensors`` describe the file; edits do not change them.
    """

    def __init__(self, model: memoryview) -> None:
        self._model = list(protobuf.fields(model))
        graphs = [content for number, _, _, content in self._model if number == _MODEL_GRAPH]
        if len(graphs) != 1:
            raise ValueError(f"a model has one graph; found {len(graphs)}")
        #: All nodes, in the order in which they run.
        self.nodes: list[Node] = []
        self.makers: dict[str, Node] = {}
        self.readers: dict[str, list[Node]] = {}
        #: Maps each constant in the file to its fields; their contents are not parsed.
        self.tensors: dict[str, list[Field]] = {}
        #: Declarations of the inputs and the outputs by name; their contents are not parsed.
        self.inputs: dict[str, memoryview] = {}
        self.outputs: dict[str, memoryview] = {}
        #: Whether the graph must not be edited: it has weights in other files, or nested graphs.
        self.refers_outside = False
        self._others: list[memoryview] = []
        self._written_inputs: dict[str, bytes] = {}
        self._written_outputs: dict[str, bytes] = {}
        for number, raw, _, content in protobuf.fields(graphs[0]):
            self._take(number, raw, content)

    def _take(self, number: int, raw: memoryview, content: memoryview) -> None:
        if number == _GRAPH_NODE:
            node = _read_node(raw, content)
            self.refers_outside |= any(_reaches_out(attribute) for attribute in node.attributes.values())
            self.nodes.append(node)
            self.makers.update(dict.fromkeys(node.outputs, node))
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        elif number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
            name = next((_text(part) for n, _, _, part in protobuf.fields(content) if n == _VALUE_NAME), "")
            (self.inputs if number == _GRAPH_INPUT else self.outputs)[name] = content
        else:
            self._others.append(raw)
            if number == _GRAPH_INITIALIZER:
                tensor = list(protobuf.fields(content))
                self.refers_outside |= _lies_elsewhere(tensor)
                self.tensors.update((_text(part), tensor) for n, _, _, part in tensor if n == _TENSOR_NAME)

    # -- reading -------------------------------------------------------------------------------------

    def constant(self, name: str) -> Sequence[int]:
        """Return a constant that is a list of integers; empty for any other tensor."""
        tensor = self.tensors.get(name)
        maker = self.makers.get(name)
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
            if len(part) > _MAX_LIST_BYTES and number in (_TENSOR_RAW, unpacked):
                return []
            if number == _TENSOR_RAW:
                numbers += struct.unpack(f"<{len(part) // struct.calcsize(code)}{code}", part)
            elif number == unpacked:
                numbers += protobuf.varints(part) if part else [protobuf.signed(value)]
        return numbers

    def sides(self, name: str) -> list[int]:
        """Return the shape of a constant; empty for a scalar, or if there is no such constant."""
        found: list[int] = []
        for number, _, value, content in self.tensors.get(name, []):
            if number == _TENSOR_SIDES:
                found += protobuf.varints(content) if content else [value]
        return found

    def numbers(self, name: str) -> npt.NDArray[np.float32] | None:
        """Return a float32 or float16 constant as float32; None if there is none."""
        tensor = self.tensors.get(name, [])
        kind = next((value for n, _, value, _ in tensor if n == _TENSOR_TYPE), 0)
        types = {(_FLOAT, _TENSOR_RAW): "<f4", (_FLOAT, _TENSOR_FLOAT): "<f4", (_HALF, _TENSOR_RAW): "<f2"}
        parts = [(content, types[kind, n]) for n, _, _, content in tensor if (kind, n) in types]
        if len(parts) != 1:
            return None
        return np.frombuffer(*parts[0]).astype(np.float32).reshape(self.sides(name))

    # -- editing -------------------------------------------------------------------------------------

    def replace(self, old: Sequence[Node], new: Sequence[Node]) -> None:
        """Replace the first of the nodes ``old`` by the nodes ``new``, and remove the other old ones."""
        place = next(index for index, node in enumerate(self.nodes) if node in old)
        self.nodes[place : place + 1] = new
        self.nodes = [node for node in self.nodes if node not in old]

    def declare_input(self, name: str, shape: Shape) -> None:
        """Change the declared shape of an input, not its type."""
        self._written_inputs[name] = _declaration(_GRAPH_INPUT, name, self.inputs[name], shape)

    def feed(self, name: str, source: str, element: str, shape: Shape, nodes: Sequence[Node]) -> None:
        """Replace the input ``name`` by an input ``source``, from which ``nodes`` compute ``name``.

        ``source`` gets this element type (a key of `ELEMENTS`) and shape. The last node makes ``name``.
        """
        elements = protobuf.write_varint(_TENSOR_ELEMENT, ELEMENTS[element])
        self._written_inputs[name] = _written_declaration(_GRAPH_INPUT, source, elements, shape)
        self.nodes[:0] = nodes

    def add_constant(self, name: str, values: npt.NDArray[Any]) -> None:
        """Add a constant. Its type is a key of `ELEMENTS`."""
        sides = (protobuf.write_varint(_TENSOR_SIDES, side) for side in values.shape)
        tensor = protobuf.write_bytes(
            _GRAPH_INITIALIZER,
            *sides,
            protobuf.write_varint(_TENSOR_TYPE, ELEMENTS[values.dtype.name]),
            protobuf.write_bytes(_TENSOR_NAME, name.encode()),
            protobuf.write_bytes(_TENSOR_RAW, values.astype(values.dtype.newbyteorder("<")).tobytes()),
        )
        self._others.append(memoryview(tensor))

    def declare_outputs(self, names: Sequence[str], rank: int) -> None:
        """Make these tensors the outputs, with the type of the output of the file and dynamic sides."""
        (value,) = self.outputs.values()
        shape = (None,) * rank
        self._written_outputs = {name: _declaration(_GRAPH_OUTPUT, name, value, shape) for name in names}

    def write(self) -> bytes:
        """Return the edited model, without nodes that no output depends on."""
        inputs = [
            self._written_inputs.get(name) or protobuf.write_bytes(_GRAPH_INPUT, value)
            for name, value in self.inputs.items()
        ]
        outputs = self._written_outputs or {
            name: protobuf.write_bytes(_GRAPH_OUTPUT, value) for name, value in self.outputs.items()
        }
        nodes = [node.raw for node in self._needed(outputs)]
        graph = protobuf.write_bytes(_MODEL_GRAPH, *nodes, *self._others, *inputs, *outputs.values())
        return b"".join(graph if number == _MODEL_GRAPH else raw for number, raw, _, _ in self._model)

    def _needed(self, outputs: Iterable[str]) -> list[Node]:
        wanted = set(outputs)
        needed: list[Node] = []
        for node in reversed(self.nodes):
            if not wanted.isdisjoint(node.outputs):
                needed.append(node)
                wanted.update(node.inputs)
        return needed[::-1]


def read_graph(path: Path) -> OnnxGraph | None:
    """Return the graph of a file; None if it is too large or of a kind that must not be edited.

    Raises OSError, ValueError or struct.error if it cannot be read, is not an ONNX file, or is damaged.
    """
    if not 0 < path.stat().st_size <= _MAX_FILE_BYTES:
        return None
    with path.open("rb") as stream:
        # The mapping closes when its last view is freed. An exception may keep a view alive for a while.
        view = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    graph = OnnxGraph(view)
    return None if graph.refers_outside else graph


def shape_of(value: memoryview) -> Shape:
    """Return the shape of a declared tensor; empty when none is declared."""
    dims = _inside(value, _VALUE_TYPE, _TYPE_TENSOR, _TENSOR_SHAPE, _SHAPE_DIM)
    sides = (next((side for n, _, side, _ in protobuf.fields(dim) if n == _DIM_VALUE), 0) for dim in dims)
    # Some exports write a dynamic side as -1.
    return tuple(side if protobuf.signed(side) > 0 else None for side in sides)


def _reaches_out(attribute: list[Field]) -> bool:
    """Return whether an attribute is a graph, which may read outer tensors, or has data in another file."""
    return any(
        number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS)
        or (number == _ATTRIBUTE_TENSOR and _lies_elsewhere(protobuf.fields(content)))
        for number, _, _, content in attribute
    )


def _lies_elsewhere(tensor: Iterable[Field]) -> bool:
    return any(number == _TENSOR_LOCATION and value for number, _, value, _ in tensor)


def _read_node(raw: memoryview, content: memoryview) -> Node:
    node = Node(raw)
    domain = ""
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
        elif number == _NODE_DOMAIN:
            domain = _text(inner)
    if domain not in _OWN_DOMAINS:
        node.op = ""
    return node


def _declaration(number: int, name: str, like: memoryview, shape: Shape) -> bytes:
    """Return the declaration of a tensor with the element type of ``like``."""
    kinds = _inside(like, _VALUE_TYPE, _TYPE_TENSOR)
    element = [raw for kind in kinds for n, raw, _, _ in protobuf.fields(kind) if n == _TENSOR_ELEMENT]
    return _written_declaration(number, name, b"".join(element), shape)


def _written_declaration(number: int, name: str, element: bytes, shape: Shape) -> bytes:
    sides = [
        protobuf.write_bytes(_SHAPE_DIM, protobuf.write_varint(_DIM_VALUE, side) if side else b"")
        for side in shape
    ]
    tensor = protobuf.write_bytes(_TYPE_TENSOR, element, protobuf.write_bytes(_TENSOR_SHAPE, *sides))
    return protobuf.write_bytes(
        number,
        protobuf.write_bytes(_VALUE_NAME, name.encode()),
        protobuf.write_bytes(_VALUE_TYPE, tensor),
    )


def _inside(message: memoryview, *path: int) -> list[memoryview]:
    """Return the messages at the end of a path of field numbers."""
    found = [message]
    for wanted in path:
        found = [inner for outer in found for n, _, _, inner in protobuf.fields(outer) if n == wanted]
    return found


def _text(content: memoryview) -> str:
    return bytes(content).decode()
