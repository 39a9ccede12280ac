"""Reads versions, metadata and the first input of an ONNX file, without ONNX Runtime and without its weights.

It walks the top-level protobuf fields and seeks over everything else, so a file of 400 MB takes milliseconds.
The field numbers are those of onnx.proto3.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

#: Longer strings of metadata and names are skipped.
_MAX_TEXT_BYTES = 1 << 20
#: A file with more fields is no ONNX model; the largest models have some 10,000 nodes.
_MAX_FIELDS = 1_000_000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_MODEL_IR_VERSION, _MODEL_PRODUCER, _MODEL_GRAPH, _MODEL_OPSET, _MODEL_METADATA = 1, 2, 7, 8, 14
_GRAPH_INPUT = 11


class NotOnnx(ValueError):
    """The file is not an ONNX model; the text says why."""


@dataclass(slots=True)
class OnnxHeader:
    """What the file says outside its nodes and weights."""

    ir_version: int = 0
    producer: str = ""
    #: Version of the standard operators.
    opset: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    input_name: str = ""
    #: Shape of the first input; None for a dynamic dimension.
    input_shape: tuple[int | None, ...] = ()


def read_header(path: Path) -> OnnxHeader:
    """Read a file's header. Raises NotOnnx, or OSError when it cannot be read."""
    with path.open("rb") as stream:
        end = os.fstat(stream.fileno()).st_size
        try:
            header = _read_model(stream, end)
        except (EOFError, ValueError, RecursionError) as error:
            raise NotOnnx(f"truncated, damaged or not ONNX ({error})") from error
    if not header.ir_version or not header.opset:
        raise NotOnnx("not an ONNX model: it has no version")
    return header


def _read_model(stream: BinaryIO, end: int) -> OnnxHeader:
    header = OnnxHeader()
    for number, kind, size in _fields(stream, end):
        if number == _MODEL_IR_VERSION and kind == _VARINT:
            header.ir_version = size
        elif kind != _BYTES:
            continue
        elif number == _MODEL_PRODUCER:
            header.producer = _text(stream, size)
        elif number == _MODEL_OPSET:
            domain, version = _opset(stream, stream.tell() + size)
            if domain in ("", "ai.onnx"):
                header.opset = version
        elif number == _MODEL_METADATA:
            key, value = _pair(stream, stream.tell() + size)
            header.metadata[key] = value
        elif number == _MODEL_GRAPH:
            _read_graph(stream, stream.tell() + size, header)
    return header


def _read_graph(stream: BinaryIO, end: int, header: OnnxHeader) -> None:
    for number, kind, size in _fields(stream, end):
        if number == _GRAPH_INPUT and kind == _BYTES and not header.input_name:
            header.input_name, header.input_shape = _value_info(stream, stream.tell() + size)


def _fields(stream: BinaryIO, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield number, wire type, and value or size of each field up to ``end``.

    After each field the stream is positioned behind it, whatever the caller has read.
    """
    for _ in range(_MAX_FIELDS):
        if stream.tell() >= end:
            return
        key = _varint(stream)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            yield number, kind, _varint(stream)
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind)
        if size is None:
            if kind != _BYTES or not number:
                raise ValueError(f"a field has the unknown type {kind}")
            size = _varint(stream)
        field_end = stream.tell() + size
        if field_end > end:
            raise EOFError("it ends in the middle of a field")
        yield number, kind, size
        stream.seek(field_end)
    raise ValueError("it has more fields than any model")


def _varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            raise EOFError("it ends in the middle of a number")
        value |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return value
    raise ValueError("it has a number of more than ten bytes")


def _text(stream: BinaryIO, size: int) -> str:
    return stream.read(size).decode("utf-8", "replace") if size <= _MAX_TEXT_BYTES else ""


def _opset(stream: BinaryIO, end: int) -> tuple[str, int]:
    domain, version = "", 0
    for number, kind, size in _fields(stream, end):
        if number == 1 and kind == _BYTES:
            domain = _text(stream, size)
        elif number == 2 and kind == _VARINT:
            version = size
    return domain, version


def _pair(stream: BinaryIO, end: int) -> tuple[str, str]:
    texts: dict[int, str] = {}
    for number, kind, size in _fields(stream, end):
        if kind == _BYTES:
            texts[number] = _text(stream, size)
    return texts.get(1, ""), texts.get(2, "")


def _value_info(stream: BinaryIO, end: int) -> tuple[str, tuple[int | None, ...]]:
    """Return name and shape: ValueInfo.name, and ValueInfo.type.tensor_type.shape.dim."""
    name = ""
    shape: tuple[int | None, ...] = ()
    for number, kind, size in _fields(stream, end):
        if kind == _BYTES and number == 1:
            name = _text(stream, size)
        elif kind == _BYTES and number == 2:
            shape = _shape(stream, stream.tell() + size, depth=2)
    return name, shape


def _shape(stream: BinaryIO, end: int, depth: int) -> tuple[int | None, ...]:
    """Descend from a type through tensor_type (1) and shape (2) to its dimensions (1)."""
    wanted = {2: 1, 1: 2, 0: 1}[depth]
    sides: list[int | None] = []
    for number, kind, size in _fields(stream, end):
        if kind != _BYTES or number != wanted:
            continue
        inner_end = stream.tell() + size
        if depth:
            return _shape(stream, inner_end, depth - 1)
        sides.append(_side(stream, inner_end))
    return tuple(sides)


def _side(stream: BinaryIO, end: int) -> int | None:
    for number, kind, value in _fields(stream, end):
        if number == 1 and kind == _VARINT:
            return value
    return None


def licence_of(metadata: Mapping[str, str]) -> str | None:
    """Return the licence in the metadata; Ultralytics writes it as `license`."""
    text = metadata.get("licence") or metadata.get("license") or ""
    # "AGPL-3.0 License (https://…)" is shortened to the SPDX identifier.
    return text.partition(" License")[0].partition(" (")[0].strip()[:80] or None
