"""Kind and size of an encoded picture from its first bytes, so that most go out as they are. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from streamer.protocol.wire import Codec

#: Start-of-frame markers of JPEG: all of C0..CF but DHT, JPG and DAC.
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})


@dataclass(frozen=True, slots=True)
class ImageSize:
    """What a picture says of itself; width and height as stored, before any EXIF rotation."""

    codec: Codec
    width: int
    height: int


def image_size(data: bytes) -> ImageSize | None:
    """Return kind and size of a JPEG, PNG or WebP; None for anything else, and for a broken header."""
    try:
        if data[:3] == b"\xff\xd8\xff":
            size = _jpeg(data)
            return size and ImageSize(Codec.JPEG, *size)
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return ImageSize(Codec.PNG, *struct.unpack_from(">II", data, 16))
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            size = _webp(data)
            return size and ImageSize(Codec.WEBP, *size)
    except (struct.error, IndexError):
        return None
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _STANDALONE:
            at += 2
        elif marker in _SOF:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            at += 2 + max(2, length)
    return None


def _webp(data: bytes) -> tuple[int, int] | None:
    chunk = data[12:16]
    if chunk == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None
