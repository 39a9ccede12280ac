"""Protobuf messages are read back as they were written, and damaged ones raise an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.graph import protobuf


@given(st.lists(st.tuples(st.integers(1, 2000), st.integers(0, 2**64 - 1) | st.binary(max_size=300))))
def test_fields_come_back_as_they_were_written(written: list[tuple[int, int | bytes]]) -> None:
    message = b"".join(
        protobuf.write_varint(number, value)
        if isinstance(value, int)
        else protobuf.write_bytes(number, value)
        for number, value in written
    )
    read = list(protobuf.fields(memoryview(message)))
    assert b"".join(raw for _, raw, _, _ in read) == message
    assert [(number, value or bytes(content) or None) for number, _, value, content in read] == [
        (number, value or None) for number, value in written
    ]


@pytest.mark.parametrize("message", [b"\x08", b"\x0a\x05abc", b"\x0b", b"\xff" * 11])
def test_a_damaged_message_is_said(message: bytes) -> None:
    with pytest.raises(ValueError, match=r"cut off|after|known|64 bits"):
        list(protobuf.fields(memoryview(message)))


@pytest.mark.parametrize("value", [-1, 0, 7, -(2**63), 2**63 - 1])
def test_whole_numbers_are_signed(value: int) -> None:
    packed = protobuf.write_varint(1, value % 2**64)[1:]
    assert protobuf.varints(memoryview(packed * 2)) == [value, value]
