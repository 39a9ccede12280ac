"""Reads the header of an ONNX file, and the names of its weight files, without reading its weights.

The file is mapped into memory and only the requested parts are read, so a file of 400 MB takes milliseconds.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from inference.graph import protobuf
from inference.graph.onnx_graph import Shape, shape_of

#: Longest name or text of the metadata in bytes; longer ones are read as empty texts.
_MAX_TEXT_BYTES = 1 << 20
#: Most fields of one message. The largest graphs have about 10,000 nodes, so a file with more is not a model.
_MAX_FIELDS = 1_000_000

# Field numbers of onnx.proto3.
_MODEL_IR_VERSION, _MODEL_PRODUCER, _MODEL_GRAPH, _MODEL_OPSET, _MODEL_METADATA = 1, 2, 7, 8, 14
_GRAPH_INPUT, _GRAPH_OUTPUT, _VALUE_NAME = 11, 12, 1
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_GRAPH_NODE = 1
_GRAPH_INITIALIZER = 5
_NODE_ATTRIBUTE = 5
_ATTRIBUTE_TENSORS = (5, 10)
_ATTRIBUTE_GRAPHS = (6, 11)
_TENSOR_EXTERNAL_DATA = 13
#: Greatest depth at which nested graphs are searched; exporters do not nest deeper.
_MAX_DEPTH = 8


class NotOnnx(ValueError):
    """Raised when a file is not an ONNX model; the text says why."""


@dataclass(slots=True)
class OnnxHeader:
    """Holds versions, metadata, the first input and the names of the outputs of a model."""

    ir_version: int = 0
    producer: str = ""
    #: Version of the standard operators.
    opset: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    input_name: str = ""
    #: Shape of the first input; None for a dynamic dimension.
    input_shape: Shape = ()
    output_names: tuple[str, ...] = ()


def read_header(path: Path) -> OnnxHeader:
    """Read a file's header. Raises NotOnnx, or OSError when it cannot be read."""
    try:
        with path.open("rb") as stream:
            view = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        header = _read_model(view)
    except ValueError as error:  # an empty file cannot be mapped and raises ValueError, too
        raise NotOnnx(f"truncated, damaged or not ONNX ({error})") from error
    if not header.ir_version or not header.opset:
        raise NotOnnx("not an ONNX model: it has no version")
    return header


def licence_of(metadata: Mapping[str, str]) -> str | None:
    """Return the licence in the metadata; Ultralytics writes it as `license`."""
    text = metadata.get("licence") or metadata.get("license") or ""
    # "AGPL-3.0 License (https://…)" is shortened to the SPDX identifier.
    return text.partition(" License")[0].partition(" (")[0].strip()[:80] or None


def _read_model(model: memoryview) -> OnnxHeader:
    header = OnnxHeader()
    for number, _, value, content in _fields(model):
        if number == _MODEL_IR_VERSION:
            header.ir_version = value
        elif number == _MODEL_PRODUCER:
            header.producer = _text(content)
        elif number == _MODEL_OPSET:
            domain, version = _opset(content)
            if domain in ("", "ai.onnx"):
                header.opset = version
        elif number == _MODEL_METADATA:
            texts = {n: _text(part) for n, _, _, part in _fields(content)}
            header.metadata[texts.get(_ENTRY_KEY, "")] = texts.get(_ENTRY_VALUE, "")
        elif number == _MODEL_GRAPH:
            _read_graph(content, header)
    return header


def _read_graph(graph: memoryview, header: OnnxHeader) -> None:
    for number, _, _, content in _fields(graph):
        if number == _GRAPH_OUTPUT:
            header.output_names += (_value_name(content),)
        elif number == _GRAPH_INPUT and not header.input_name:
            header.input_name = _value_name(content)
            header.input_shape = shape_of(content)


def _value_name(message: memoryview) -> str:
    return next((_text(part) for number, _, _, part in _fields(message) if number == _VALUE_NAME), "")


def _opset(message: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, _, value, content in _fields(message):
        if number == _OPSET_DOMAIN:
            domain = _text(content)
        elif number == _OPSET_VERSION:
            version = value
    return domain, version


def _text(content: memoryview) -> str:
    return bytes(content).decode("utf-8", "replace") if len(content) <= _MAX_TEXT_BYTES else ""


def _fields(message: memoryview) -> Iterator[protobuf.Field]:
    for count, found in enumerate(protobuf.fields(message)):
        if count >= _MAX_FIELDS:
            raise ValueError("it has more fields than any model")
        yield found


def external_files(model: Path) -> set[str]:
    """Return the files in which a model keeps tensors, as paths relative to its folder.

    Leaves out paths that lead out of the folder. Raises OSError or ValueError when the model cannot be read.
    """
    return _inside(external_locations(model))


def external_locations(model: Path) -> set[str]:
    """Return the locations of weight files as the model states them, which may lead anywhere.

    Raises OSError or ValueError when the model cannot be read.
    """
    with model.open("rb") as stream:
        # The mapping is closed when its last view is deleted; an exception may keep a view alive for a while.
        view = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    return set(_locations(view))


def _inside(names: set[str]) -> set[str]:
    paths = {name: PurePosixPath(name) for name in names}
    return {name for name, path in paths.items() if not path.is_absolute() and ".." not in path.parts}


def _locations(model: memoryview) -> list[str]:
    found: list[str] = []
    for number, _, _, content in protobuf.fields(model):
        if number == _MODEL_GRAPH:
            found += _in_graph(content, _MAX_DEPTH)
    return found


def _in_graph(graph: memoryview, depth: int) -> Iterator[str]:
    for number, _, _, content in protobuf.fields(graph):
        if number == _GRAPH_INITIALIZER:
            yield from _in_tensor(content)
        elif number == _GRAPH_NODE and depth:
            for field, _, _, attribute in protobuf.fields(content):
                if field == _NODE_ATTRIBUTE:
                    yield from _in_attribute(attribute, depth - 1)


def _in_attribute(attribute: memoryview, depth: int) -> Iterator[str]:
    for number, _, _, content in protobuf.fields(attribute):
        if number in _ATTRIBUTE_TENSORS:
            yield from _in_tensor(content)
        elif number in _ATTRIBUTE_GRAPHS:
            yield from _in_graph(content, depth)


def _in_tensor(tensor: memoryview) -> Iterator[str]:
    for number, _, _, entry in protobuf.fields(tensor):
        if number == _TENSOR_EXTERNAL_DATA:
            parts = {field: bytes(content) for field, _, _, content in protobuf.fields(entry)}
            if parts.get(_ENTRY_KEY) == b"location":
                yield parts.get(_ENTRY_VALUE, b"").decode("utf-8", "replace")
