"""Removes metadata from an encoded image without changing its pixels: GPS, camera, author, comments. Pure.

Only the EXIF orientation is kept, because boxes are in pixels of the upright image.
"""

from __future__ import annotations

import struct
import zlib

from streamer.protocol.wire import Codec

_EXIF = b"Exif\x00\x00"
#: Markers of JPEG segments that are dropped: APP1 (EXIF, XMP), APP3 to APP13, comments. APP2 (ICC) stays.
_JPEG_DROPPED = {0xE1, *range(0xE3, 0xEE), 0xFE}
_JPEG_STANDALONE = {0x01, *range(0xD0, 0xD8)}
_PNG_DROPPED = {b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"tIME"}
_WEBP_DROPPED = {b"EXIF", b"XMP "}
#: Flags of a VP8X chunk that announce EXIF and XMP.
_VP8X_EXIF, _VP8X_XMP = 0x08, 0x04


def strip_metadata(data: bytes, codec: Codec, orientation: int) -> bytes:
    """Return the image without any metadata except an ``orientation`` other than 1.

    ``data`` must have passed `image_header.read_header`. Raises ValueError when its metadata is truncated.
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
    while position < len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if kind not in _PNG_DROPPED:
            kept.append(data[position:end])
        if kind == b"IHDR" and orientation != 1:
            kept.append(_png_chunk(b"eXIf", orientation_block(orientation)))
        if kind == b"IEND":
            break  # bytes behind the end are no part of the image
        position = end
    return b"".join(kept)


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _strip_webp(data: bytes, orientation: int) -> bytes:
    end = min(len(data), 8 + struct.unpack_from("<I", data, 4)[0])
    kept: list[bytes] = []
    position = 12
    while position + 8 <= end:
        kind, length = struct.unpack_from("<4sI", data, position)
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
