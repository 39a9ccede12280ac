"""Reads and writes fields in the protobuf wire format, as far as the editing of ONNX files needs it.

Nested messages stay byte ranges until they are iterated, so weights are neither copied nor parsed.
Source: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
_MAX_VARINT_BYTES = 10

#: Field number, raw bytes with the tag, value (0 unless VARINT), content (empty unless BYTES).
Field = tuple[int, memoryview, int, memoryview]
_NOTHING = memoryview(b"")


def fields(message: memoryview) -> Iterator[Field]:
    """Yield the fields of a message in order. Raises ValueError when it is damaged or cut off."""
    at = 0
    while at < len(message):
        begin = at
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        value, content = 0, _NOTHING
        if kind == VARINT:
            value, at = _varint(message, at)
        elif kind == BYTES:
            size, at = _varint(message, at)
            content = message[at : at + size]
            at += size
        elif kind in _FIXED_BYTES:
            at += _FIXED_BYTES[kind]
        else:
            raise ValueError(f"wire type {kind} is not known")
        if at > len(message):
            raise ValueError("a field ends after its message")
        yield number, message[begin:at], value, content


def varints(content: memoryview) -> list[int]:
    """Return a packed repeated field of varints, as signed 64-bit numbers."""
    found, at = [], 0
    while at < len(content):
        value, at = _varint(content, at)
        found.append(signed(value))
    return found


def signed(value: int) -> int:
    """Return the int64 that a varint encodes."""
    return value - (1 << 64) if value >= 1 << 63 else value


def write_varint(number: int, value: int) -> bytes:
    """Return field ``number`` with a value of at least 0."""
    return _written(number << 3 | VARINT) + _written(value)


def write_bytes(number: int, *parts: bytes | memoryview) -> bytes:
    """Return field ``number`` with a text, bytes, or a message made of ``parts``."""
    return b"".join((_written(number << 3 | BYTES), _written(sum(map(len, parts))), *parts))


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place in range(_MAX_VARINT_BYTES):
        if at >= len(message):
            raise ValueError("the message is cut off")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise ValueError("a number of more than 64 bits")


def _written(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
