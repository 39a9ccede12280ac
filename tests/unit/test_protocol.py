"""The wire format of detect.v1: 24-byte frame headers and control messages."""

from __future__ import annotations

import struct

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.protocol.wire import (
    FRAME_HEADER_BYTES,
    SUBPROTOCOL_JSON,
    SUBPROTOCOL_MSGPACK,
    Codec,
    Frame,
    FrameFlag,
    ProtocolError,
    decode_message,
    encode_message,
    pack_frame,
    unpack_frame,
)

frames = st.builds(
    Frame,
    codec=st.sampled_from(Codec),
    seq=st.integers(1, 2**32 - 1),
    ts=st.integers(0, 2**64 - 1),
    payload=st.binary(max_size=50),
    width=st.integers(0, 65535),
    height=st.integers(0, 65535),
    stream=st.integers(0, 7),
    rotation=st.integers(0, 3),
    epoch=st.integers(0, 65535),
    flags=st.sampled_from([FrameFlag(0), FrameFlag.KEY, FrameFlag.KEY | FrameFlag.LAST]),
)


@given(frames)
def test_a_frame_comes_back_as_it_was(frame: Frame) -> None:
    back = unpack_frame(pack_frame(frame))
    assert (back.codec, back.seq, back.ts, back.stream, back.rotation) == (
        frame.codec,
        frame.seq,
        frame.ts,
        frame.stream,
        frame.rotation,
    )
    assert (back.width, back.height, back.epoch, back.flags) == (
        frame.width,
        frame.height,
        frame.epoch,
        frame.flags,
    )
    assert bytes(back.payload) == frame.payload


def test_the_header_is_laid_out_as_the_protocol_says() -> None:
    data = pack_frame(Frame(Codec.PNG, 5, 6, b"x", 640, 480, 3, 1, 9, FrameFlag.KEY))
    assert data == struct.pack("<BBBBIQHHBBH", 1, 1, 1, 6, 5, 6, 640, 480, 3, 1, 9) + b"x"


def test_a_longer_header_is_skipped() -> None:
    data = bytearray(pack_frame(Frame(Codec.JPEG, 1, 0, b"later fields" + b"image")))
    data[3] = (FRAME_HEADER_BYTES + 12) // 4
    assert bytes(unpack_frame(bytes(data)).payload) == b"image"


@pytest.mark.parametrize(
    ("offset", "value", "field"),
    [
        (0, 2, "mark"),
        (1, 5, "codec"),
        (3, 5, "header length"),
        (3, 200, "header length"),
        (4, 0, "seq"),
        (20, 8, "stream"),
        (21, 4, "rotation"),
    ],
)
def test_a_wrong_header_field_is_named(offset: int, value: int, field: str) -> None:
    data = bytearray(pack_frame(Frame(Codec.JPEG, 1, 0, b"payload")))
    data[offset] = value
    with pytest.raises(ProtocolError) as caught:
        unpack_frame(bytes(data))
    assert caught.value.field == field
    assert str(value) in str(caught.value) or field in ("mark", "header length")


@given(st.binary(max_size=80))
def test_random_bytes_never_do_worse_than_a_protocol_error(data: bytes) -> None:
    try:
        unpack_frame(data)
    except ProtocolError as error:
        assert error.code == "bad_frame"


@pytest.mark.parametrize("subprotocol", [SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK])
def test_messages_come_back_in_both_encodings(subprotocol: str) -> None:
    message = {"type": "result", "boxes": [[1.5, 2.0, 3.0, 4.0, 0.9, 1]], "label": "Größe"}
    encoded = encode_message(message, subprotocol)
    assert decode_message(encoded) == message
    assert isinstance(encoded, str) or encoded[0] >= 0x80


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("{", "not JSON"),
        ("[1]", "found list"),
        ("{}", "`type`"),
        ('{"type": 5}', "`type`"),
        (b"\xc1", "not msgpack"),
        (msgpack.packb([1]), "found list"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_message_is_refused_in_words(data: str | bytes, text: str) -> None:
    with pytest.raises(ProtocolError, match=text):
        decode_message(data)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_not_finite_are_named_by_their_path(number: str) -> None:
    text = f'{{"type": "configure", "params": {{"list": [1, {{"conf_threshold": {number}}}]}}}}'
    with pytest.raises(ProtocolError, match=r"params\.list\[1\]\.conf_threshold") as caught:
        decode_message(text)
    assert caught.value.field == "params.list[1].conf_threshold"
