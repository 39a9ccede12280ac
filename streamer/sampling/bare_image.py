"""Takes metadata out of a picture without touching its pixels: GPS, camera, author, comments. Pure.

The EXIF orientation stays, alone: the boxes stand in upright pixels, and without it nobody could turn the
picture upright.
"""

from __future__ import annotations

import struct
import zlib

from streamer.protocol.wire import Codec

_EXIF = b"Exif\x00\x00"
#: What of a JPEG is not picture: APP1 (EXIF, XMP), APP2..APP13 without ICC, comments.
_JPEG_DROPPED = {0xE1, *range(0xE3, 0xEE), 0xFE}
_JPEG_STANDALONE = {0x01, *range(0xD0, 0xD8)}
_PNG_DROPPED = {b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"tIME"}
_WEBP_DROPPED = {b"EXIF", b"XMP "}
#: Flags of a VP8X chunk that announce EXIF and XMP.
_VP8X_EXIF, _VP8X_XMP = 0x08, 0x04


def bare_image(data: bytes, codec: Codec, orientation: int) -> bytes:
    """Return the picture without metadata but for an ``orientation`` other than 1.

    ``data`` must have passed `image_header.read_header`. Raises ValueError where it is cut off all the same.
    """
    try:
        if codec is Codec.JPEG:
            return _bare_jpeg(data, orientation)
        return _bare_png(data, orientation) if codec is Codec.PNG else _bare_webp(data, orientation)
    except (struct.error, IndexError) as error:
        raise ValueError(f"cut off in its metadata: {error}") from error


def orientation_block(orientation: int) -> bytes:
    """Return a TIFF block that holds nothing but the orientation."""
    return struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def _bare_jpeg(data: bytes, orientation: int) -> bytes:
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
        if marker == 0xDA:  # the picture begins; what stands in later scans is needed to decode it
            return b"".join([*kept, data[position:]])
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker not in _JPEG_DROPPED:
            kept.append(data[position : position + 2 + length])
        position += 2 + length


def _bare_png(data: bytes, orientation: int) -> bytes:
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
            break  # what follows is no part of the picture
        position = end
    return b"".join(kept)


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _bare_webp(data: bytes, orientation: int) -> bytes:
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
    if orientation != 1:  # an orientation came from an EXIF chunk, so there is a VP8X that announces it
        block = orientation_block(orientation)
        kept.append(b"EXIF" + struct.pack("<I", len(block)) + block)
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body
