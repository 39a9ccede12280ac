"""Encodes and decodes the wire format of `detect.v1`: control messages, binary frames and ``frame`` messages.

This file imports nothing of the server, so that the client library stays light. docs/protocol.md describes
the protocol.

In a ``frame`` message, only the image may be large. In JSON, the decoder finds the image by scanning and
removes it before it parses the rest. In msgpack, it decodes only a flat map. The objects that it creates
therefore stay as small as those of a control message, whatever the sender writes.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag, StrEnum
from typing import Any, TypedDict

import msgpack

from streamer.protocol.message_values import ProtocolError as ProtocolError
from streamer.protocol.message_values import check_values

SUBPROTOCOL_MSGPACK = "detect.v1.msgpack"
SUBPROTOCOL_JSON = "detect.v1.json"
SUBPROTOCOLS = (SUBPROTOCOL_MSGPACK, SUBPROTOCOL_JSON)

FRAME_MARK = 0x01
#: The fields: mark, codec, flags, header length / 4, seq, ts, width, height, stream, rotation, epoch.
FRAME_HEADER = struct.Struct("<BBBBIQHHBBH")
FRAME_HEADER_BYTES = FRAME_HEADER.size
MAX_STREAMS = 8
MAX_SEQ = 0xFFFFFFFF


class Codec(IntEnum):
    """Names the codec of a frame. Values from 16 on are video, of which the decoder needs every chunk."""

    JPEG = 0
    PNG = 1
    WEBP = 2
    HEIC = 3
    AVIF = 4
    H264 = 16
    VP8 = 17
    VP9 = 18
    AV1 = 19


#: Codecs by their name in ``hello.streams[].codec``.
CODEC_NAMES = {codec.name.lower(): codec for codec in Codec}
#: Codecs by their number. This is faster than calling the enumeration, which takes three calls.
_CODECS = {codec.value: codec for codec in Codec}
IMAGE_CODECS = (Codec.JPEG, Codec.PNG, Codec.WEBP, Codec.HEIC, Codec.AVIF)


class FrameFlag(IntFlag):
    """Names the bits of a frame header's third byte."""

    KEY = 1
    DISCONTINUITY = 2
    LAST = 8


NO_FLAGS = FrameFlag(0)
_KNOWN_FLAGS = (FrameFlag.KEY | FrameFlag.DISCONTINUITY | FrameFlag.LAST).value
#: Flags by their bits.
_FLAGS = {bits: FrameFlag(bits) for bits in range(_KNOWN_FLAGS + 1) if bits & _KNOWN_FLAGS == bits}
#: Shared encoders, because `packb` and `dumps` would create a new one for each message.
_MSGPACK = msgpack.Packer()
_JSON = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


class DropReason(StrEnum):
    """Names the reasons why a received frame was not inferred."""

    SUPERSEDED = "superseded"
    STALE = "stale"
    RATE = "rate"
    DECODE_ERROR = "decode_error"
    NO_KEYFRAME = "no_keyframe"
    OVERLOAD = "overload"


class FrameTime(TypedDict, total=False):
    """Holds the time of a frame in its result: exactly one of the two fields."""

    #: The sender's clock in microseconds, for a frame that arrived as a message.
    ts: int
    #: The RTP timestamp (32 bits, 90 kHz), for a frame of a video.
    rtp: int


# Nobody changes an instance, but a frozen class would make each construction three times as slow.
@dataclass(slots=True)
class Frame:
    """Holds one frame message: its header fields and the encoded payload.

    ``ts`` is the sender's monotonic clock in microseconds, opaque to the receiver. ``width`` and
    ``height`` are the payload's stored size in pixels (0: not stated); ``rotation`` counts clockwise
    quarter turns that make the image upright.
    """

    codec: Codec
    seq: int
    ts: int
    payload: bytes | memoryview
    width: int = 0
    height: int = 0
    stream: int = 0
    rotation: int = 0
    epoch: int = 0
    flags: FrameFlag = NO_FLAGS

    def stamp(self) -> FrameTime:
        """Return the frame's time as the field that its result contains."""
        return {"ts": self.ts}


def pack_frame(frame: Frame) -> bytes:
    """Return ``frame`` as one binary message. Raises struct.error when a field is out of its range."""
    header = FRAME_HEADER.pack(
        FRAME_MARK,
        frame.codec,
        frame.flags,
        FRAME_HEADER_BYTES // 4,
        frame.seq,
        frame.ts,
        frame.width,
        frame.height,
        frame.stream,
        frame.rotation,
        frame.epoch,
    )
    return b"".join((header, frame.payload))


def unpack_frame(data: bytes | memoryview) -> Frame:
    """Parse one binary frame message; the payload is a view into ``data``.

    Raises ProtocolError naming the header field that is wrong.
    """
    if len(data) < FRAME_HEADER_BYTES:
        raise ProtocolError(
            f"a frame message has at least {FRAME_HEADER_BYTES} header bytes, found {len(data)}",
            code="bad_frame",
            field="header",
        )
    mark, codec, flags, words, seq, ts, width, height, stream, rotation, epoch = FRAME_HEADER.unpack_from(
        data
    )
    header_bytes = words * 4
    if mark != FRAME_MARK:
        raise _bad_frame("mark", f"0x{mark:02x}", "0x01")
    if header_bytes < FRAME_HEADER_BYTES or header_bytes > len(data):
        allowed = f"{FRAME_HEADER_BYTES} to the message's {len(data)} bytes"
        raise _bad_frame("header length", str(header_bytes), allowed)
    if codec not in _CODECS:
        known = ", ".join(f"{c.value} ({c.name.lower()})" for c in Codec)
        raise _bad_frame("codec", str(codec), known)
    if seq < 1:
        raise _bad_frame("seq", "0", "1 and up, for every stream")
    if stream >= MAX_STREAMS:
        raise _bad_frame("stream", str(stream), f"0 to {MAX_STREAMS - 1}")
    if rotation > 3:
        raise _bad_frame("rotation", str(rotation), "0 to 3 quarter turns")
    return Frame(
        codec=_CODECS[codec],
        seq=seq,
        ts=ts,
        payload=memoryview(data)[header_bytes:],
        width=width,
        height=height,
        stream=stream,
        rotation=rotation,
        epoch=epoch,
        flags=_FLAGS[flags & _KNOWN_FLAGS],
    )


def _bad_frame(field: str, found: str, allowed: str) -> ProtocolError:
    return ProtocolError(
        f"frame header: {field} is {found}; allowed: {allowed}", code="bad_frame", field=field
    )


def encode_message(message: Mapping[str, object], subprotocol: str) -> str | bytes:
    """Encode a control message: text for JSON, bytes for msgpack."""
    if subprotocol == SUBPROTOCOL_MSGPACK:
        packed: bytes = _MSGPACK.pack(message)
        return packed
    return _JSON.encode(message)


def decode_message(data: str | bytes, *, most_values: int | None = None) -> dict[str, Any]:
    """Parse a control message: JSON when text, msgpack when bytes.

    ``most_values`` limits the number of values in the message, at any depth; None means no limit. The caller
    must limit the message's bytes before. Raises ProtocolError if the message does not parse, is not a map,
    has no string ``type``, has too many values, or contains a value that no message may contain: NaN,
    infinity, a whole number of more than 64 bits, or too many levels. ``field`` then names that value.
    """
    try:
        message = json.loads(data) if isinstance(data, str) else msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        # A TypeError means that a map in msgpack has a map or a list as a key.
        kind = "JSON" if isinstance(data, str) else "msgpack"
        reason = str(error)[:120] or type(error).__name__
        raise ProtocolError(f"the message is not {kind}: {reason}") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"a message is a map with a field `type`; found {type(message).__name__}")
    if not isinstance(message.get("type"), str):
        raise ProtocolError(
            f"field `type` must be a string; found {type(message.get('type')).__name__}", field="type"
        )
    check_values(message, most_values)
    return message


#: Largest number of fields of a frame in msgpack; `client_messages.TextFrame` has ten.
_MAX_FIELDS = 64
#: The start of the image's text. Base64 has no quotes, so the next quote is its end.
_IMAGE = re.compile(r'"data"[ \t\r\n]*:[ \t\r\n]*"')


def decode_large_frame(data: str | bytes, *, most_bytes: int, most_values: int) -> dict[str, Any]:
    """Return the map of a ``frame`` message in JSON or msgpack.

    ``most_bytes`` limits the bytes around the image, ``most_values`` the values in the message. Raises
    ProtocolError with code ``too_large`` for any other message, and the errors of :func:`decode_message`.
    """
    message = (
        _decode_json(data, most_bytes, most_values)
        if isinstance(data, str)
        else _decode_msgpack(data, most_bytes)
    )
    if message.get("type") != "frame":
        raise _too_large(data, most_bytes)
    return message


def _decode_json(text: str, most_bytes: int, most_values: int) -> dict[str, Any]:
    found = _IMAGE.search(text)
    end = text.find('"', found.end()) if found else -1
    if found is None or end < 0 or found.end() + len(text) - end > most_bytes:
        raise _too_large(text, most_bytes)
    # Parse the message with an empty text in place of the image. If `data` is not empty afterwards, the match
    # was inside another field.
    message = decode_message(text[: found.end()] + text[end:], most_values=most_values)
    if message.get("data") != "":
        raise _too_large(text, most_bytes)
    message["data"] = _unescape(text[found.end() : end])
    return message


def _unescape(text: str) -> str:
    """Return base64 without the escapes of JSON. Encoders escape only the slash in base64."""
    return text.replace("\\/", "/") if "\\" in text else text


def _decode_msgpack(data: bytes, most_bytes: int) -> dict[str, Any]:
    """Decode the map entry by entry, so that lists and maps in it are refused before they are built."""
    unpacker = msgpack.Unpacker(
        max_buffer_size=len(data), max_array_len=0, max_map_len=0, max_ext_len=0, strict_map_key=False
    )
    unpacker.feed(data)
    message: dict[str, Any] = {}
    around_bytes = len(data)
    try:
        count = unpacker.read_map_header()
        if count > _MAX_FIELDS:
            raise _too_large(data, most_bytes)
        for _ in range(count):
            key, value = unpacker.unpack(), unpacker.unpack()
            if not isinstance(key, str):
                raise _too_large(data, most_bytes)
            if key == "data" and isinstance(value, str | bytes):
                around_bytes -= len(value)
            message[key] = value
    except (ValueError, msgpack.exceptions.UnpackException) as error:
        raise _too_large(data, most_bytes) from error
    if around_bytes > most_bytes:
        raise _too_large(data, most_bytes)
    check_values(message, _MAX_FIELDS)
    return message


def _too_large(data: str | bytes, most_bytes: int) -> ProtocolError:
    return ProtocolError(
        f"a message of {len(data)} bytes is not a frame; a control message has at most {most_bytes}",
        code="too_large",
    )
