"""Names the files in which an ONNX model keeps tensors besides its own."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from inference.graph import protobuf

_MODEL_GRAPH = 7
_GRAPH_NODE = 1
_GRAPH_INITIALIZER = 5
_NODE_ATTRIBUTE = 5
_ATTRIBUTE_TENSORS = (5, 10)
_ATTRIBUTE_GRAPHS = (6, 11)
_TENSOR_EXTERNAL_DATA = 13
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
#: Graphs inside of graphs that are looked into; more are not made by exporters.
_MAX_DEPTH = 8


def external_files(model: Path) -> set[str]:
    """Return their paths relative to the model's folder, as the model names them; none outside of it.

    Raises OSError or ValueError where the model cannot be read.
    """
    with model.open("rb") as stream:
        # Unmapped when the last view of it is gone, which an exception may keep for a while.
        view = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    return _inside(set(_locations(view)))


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
