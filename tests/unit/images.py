"""Builds encoded test images: OpenCV encodes the pixels, and single bytes are written where it cannot."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


def scene(width: int = 160, height: int = 96) -> Image:
    """Return a smooth image with a different colour in each corner, so that a rotation or flip shows."""
    x = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    channels = (200 * x + 0 * y, 200 * y + 0 * x, 40 + 120 * x * y)
    return np.stack(channels, axis=2).round().astype(np.uint8)


def encode(image: npt.NDArray[np.uint8 | np.uint16], suffix: str = ".jpg", *params: int) -> bytes:
    """Encode an image with OpenCV, in the format of the suffix."""
    done, encoded = cv2.imencode(suffix, image, list(params))
    assert done
    return bytes(encoded.tobytes())


def exif_block(orientation: int, order: str = "<") -> bytes:
    """Return a TIFF block that holds only the orientation."""
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def with_jpeg_segment(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    """Insert a segment right after the start marker of a JPEG."""
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload + jpeg[2:]


def with_exif(data: bytes, orientation: int) -> bytes:
    """Return the JPEG, PNG or lossy WebP with an EXIF orientation."""
    block = exif_block(orientation)
    if data.startswith(b"\xff\xd8"):
        return with_jpeg_segment(data, 0xE1, b"Exif\x00\x00" + block)
    if data.startswith(b"\x89PNG"):
        return data[:33] + png_chunk(b"eXIf", block) + data[33:]
    exif = webp_chunk(b"EXIF", block)
    if data[12:16] == b"VP8X":
        return riff(data[12:20] + bytes((data[20] | 8,)) + data[21:] + exif)
    width, height = (value & 0x3FFF for value in struct.unpack_from("<HH", data, 26))
    canvas = struct.pack("<I", 8) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return riff(webp_chunk(b"VP8X", canvas) + data[12:] + exif)


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    """Return a PNG chunk with its length and checksum."""
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png_claiming(width: int, height: int, data: bytes = b"", depth: int = 8, colour: int = 2) -> bytes:
    """Return a PNG whose header claims this size, whatever its data hold."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
    )


def jpeg_claiming(width: int, height: int, *, progressive: bool = False) -> bytes:
    """Return a small JPEG whose header claims another size, and with ``progressive`` another coding."""
    jpeg = bytearray(encode(scene(16, 16)))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 1] = 0xC2 if progressive else 0xC0
    jpeg[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(jpeg)


def webp_chunk(kind: bytes, payload: bytes) -> bytes:
    """Return a RIFF chunk, padded to an even length."""
    return kind + struct.pack("<I", len(payload)) + payload + b"\x00" * (len(payload) & 1)


def riff(chunks: bytes) -> bytes:
    """Return a WebP file with these chunks."""
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks
