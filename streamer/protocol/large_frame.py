"""Decodes a text frame that is larger than a control message may be. Pure.

Only the image in such a message may be large. It is found by scanning and removed first, so that what is
parsed into objects stays as small as a control message, whatever the sender writes.
"""

from __future__ import annotations

import re
from typing import Any

import msgpack

from streamer.protocol.message_values import ProtocolError, check_values
from streamer.protocol.wire import decode_message

#: Fields of a frame in msgpack; `client_messages.TextFrame` has ten.
_MAX_FIELDS = 64
#: The start of the image's text. Base64 has no quotes, so the next quote is its end.
_IMAGE = re.compile(r'"data"[ \t\r\n]*:[ \t\r\n]*"')


def decode_large_frame(data: str | bytes, *, most_bytes: int, most_values: int) -> dict[str, Any]:
    """Return the map of a ``frame`` message in JSON or msgpack.

    ``most_bytes`` limits the bytes around the image, ``most_values`` the values in the message. Raises
    ProtocolError with code ``too_large`` for any other message, or as :func:`decode_message`.
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
    # The image is replaced by an empty text. If `data` then is not empty, the match was inside another field.
    message = decode_message(text[: found.end()] + text[end:], most_values=most_values)
    if message.get("data") != "":
        raise _too_large(text, most_bytes)
    message["data"] = _unescape(text[found.end() : end])
    return message


def _unescape(text: str) -> str:
    """Return base64 without the escapes of JSON, of which only the escaped slash can occur in it."""
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
