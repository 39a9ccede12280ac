"""Decodes and encodes the image of a candidate, and removes metadata from it.

The EXIF orientation is kept, because boxes are in pixels of the upright image. Colour profiles are kept, too.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from streamer.imaging.decode import Image, decode
from streamer.imaging.image_header import read_header
from streamer.imaging.pixel_limits import NoPixelLimits
from streamer.protocol.wire import Codec
from streamer.sampling.candidate import ENCODED, JPEG_QUALITY, PIXELS, SampleCandidate


class Decode(Protocol):
    """Decodes an encoded image."""

    def __call__(self, data: bytes, *, rotation: int, target: tuple[int, int] | None) -> Image:
        """Return the image upright as uint8 BGR, at least as large as ``target``. Raises ImageError."""


def decode_here(data: bytes, *, rotation: int, target: tuple[int, int] | None) -> Image:
    """Decode an image in this process.

    Use this only for trusted bytes, as in tests; the service decodes in a sandbox.
    """
    header = read_header(data, NoPixelLimits())
    return decode(data, header, rotation=rotation, target=target, reduce=target is not None).pixels


def image_of(
    candidate: SampleCandidate, target: tuple[int, int] | None = None, decode: Decode = decode_here
) -> Image:
    """Return the image upright as uint8 BGR (height, width, 3).

    With ``target``, a width and height in pixels, it may be reduced, but stays at least that large.
    ``decode`` is called for encoded images. Raises ImageError.
    """
    data = image_bytes(candidate)
    if candidate.source == PIXELS:
        return np.frombuffer(data, np.uint8).reshape(candidate.height, candidate.width, 3)
    return decode(data, rotation=candidate.rotation, target=target)


def encoded(candidate: SampleCandidate) -> SampleCandidate:
    """Return the candidate with an encoded image; pixels become a JPEG, which takes 4.7 ms at 1080p."""
    if candidate.source != PIXELS:
        return candidate
    image = image_of(candidate)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return dataclasses.replace(candidate, data=data.tobytes(), source=ENCODED)


def stored_as_jpeg(candidate: SampleCandidate, decode: Decode) -> SampleCandidate:
    """Return the candidate with its upright image as a JPEG.

    Samples of formats that many training tools do not read are stored in this form. Raises ImageError.
    """
    image = image_of(candidate, decode=decode)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return dataclasses.replace(candidate, data=data.tobytes(), rotation=0, source=ENCODED)


def image_bytes(candidate: SampleCandidate) -> bytes:
    """Return the bytes of the image in its present form."""
    if not isinstance(candidate.data, bytes | memoryview):
        raise TypeError("the sampling process gets images as bytes")
    return bytes(candidate.data)


def fingerprint(image: npt.NDArray[np.uint8]) -> int:
    """Return the difference hash of a BGR image: near-duplicates differ in few of its 64 bits.

    Each bit says whether one of 8 x 8 cells is brighter than its left neighbour.
    """
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (9, 8), interpolation=cv2.INTER_AREA)
    bits = np.packbits(small[:, 1:] > small[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")


_EXIF = b"Exif\x00\x00"
#: Markers of JPEG segments that are removed: APP1 (EXIF, XMP), APP3 to APP13, comments. APP2 (ICC) stays.
_JPEG_DROPPED = {0xE1, *range(0xE3, 0xEE), 0xFE}
_JPEG_STANDALONE = {0x01, *range(0xD0, 0xD8)}
_PNG_DROPPED = {b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"tIME"}
_WEBP_DROPPED = {b"EXIF", b"XMP "}
#: Flags of a VP8X chunk that announce EXIF and XMP.
_VP8X_EXIF, _VP8X_XMP = 0x08, 0x04


def strip_metadata(data: bytes, codec: Codec, orientation: int) -> bytes:
    """Return the image without any metadata except an ``orientation`` other than 1.

    ``data`` is a JPEG, PNG or WebP that has passed `image_header.read_header`. Raises ValueError when its
    metadata is truncated or malformed.
    """
    try:
        if codec is Codec.JPEG:
            return _strip_jpeg(data, orientation)
        return _strip_png(data, orientation) if codec is Codec.PNG else _strip_webp(data, orientation)
    except (struct.error, IndexError) as error:
        raise ValueError(f"cut off in its metadata: {error}") from error


def orientation_block(orientation: int) -> bytes:
    """Return a TIFF block that contains only the orientation."""
    return struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def _strip_jpeg(data: bytes, orientation: int) -> bytes:
    kept = [data[:2]]
    if orientation != 1:
        block = _EXIF + orientation_block(orientation)
        kept.append(b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block)
    position = 2
    while True:
        if data[position] != 0xFF:
            raise ValueError(f"no marker at byte {position}")
        while data[position + 1] == 0xFF:
            position += 1
        marker = data[position + 1]
        if marker in _JPEG_STANDALONE:
            kept.append(data[position : position + 2])
            position += 2
            continue
        if marker == 0xDA:  # the scans begin; all later segments are needed to decode them
            return b"".join([*kept, data[position:]])
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker not in _JPEG_DROPPED:
            kept.append(data[position : position + 2 + length])
        position += 2 + length


def _strip_png(data: bytes, orientation: int) -> bytes:
    kept = [data[:8]]
    position = 8
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):  # the file is cut off behind its image data, or within the checksum of these
            if kind == b"IDAT":
                kept.append(_png_chunk(kind, _whole(data[position + 8 : position + 8 + length], length)))
            break
        if kind not in _PNG_DROPPED and kind != b"IEND":
            kept.append(data[position:end])
        if kind == b"IHDR" and orientation != 1:
            kept.append(_png_chunk(b"eXIf", orientation_block(orientation)))
        if kind == b"IEND":
            break  # bytes after this chunk are not part of the image
        position = end
    return b"".join([*kept, _png_chunk(b"IEND", b"")])


def _whole(body: bytes, length: int) -> bytes:
    if len(body) < length:
        raise ValueError(f"cut off in its image data: the last chunk has {len(body)} of {length} bytes")
    return body


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _strip_webp(data: bytes, orientation: int) -> bytes:
    end = min(len(data), 8 + struct.unpack_from("<I", data, 4)[0])
    kept: list[bytes] = []
    position = 12
    while position + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, position)
        if position + 8 + length > end:
            break  # the file is cut off behind its image
        after = position + 8 + length + (length & 1)
        chunk = data[position:after]
        if kind == b"VP8X":
            flags = (chunk[8] & ~(_VP8X_EXIF | _VP8X_XMP)) | (_VP8X_EXIF if orientation != 1 else 0)
            chunk = chunk[:8] + bytes((flags,)) + chunk[9:]
        if kind not in _WEBP_DROPPED:
            kept.append(chunk)
        position = after
    if orientation != 1:  # the orientation came from an EXIF chunk, so a VP8X chunk with flags was kept above
        block = orientation_block(orientation)
        kept.append(b"EXIF" + struct.pack("<I", len(block)) + block)
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body
