"""Finds the EXIF orientation of a JPEG, PNG, WebP or TIFF file."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from streamer.imaging.exif import read_orientation


def orientation(data: bytes) -> int:
    """Return the orientation 1 to 8; 1 (upright) where the file names none or is broken."""
    if data[:4] in (b"II*\x00", b"MM\x00*"):
        return read_orientation(data)
    for name, block in _blocks(data):
        if name in (b"eXIf", b"EXIF") or (name == b"\xe1" and block.startswith(b"Exif\x00\x00")):
            return read_orientation(block)
    return 1


def _blocks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the blocks of a file with their names: segments of a JPEG, chunks of a PNG or WebP."""
    try:
        if data.startswith(b"\xff\xd8\xff"):
            at = 2
            # Until the compressed picture, which has no length.
            while data[at] == 0xFF and data[at + 1] != 0xDA:
                (length,) = struct.unpack_from(">H", data, at + 2)
                yield data[at + 1 : at + 2], data[at + 4 : at + 2 + length]
                at += 2 + max(2, length)
        elif data.startswith(b"\x89PNG\r\n\x1a\n"):
            at = 8
            while at < len(data):
                length, name = struct.unpack_from(">I4s", data, at)
                yield name, data[at + 8 : at + 8 + length]
                at += 12 + length
        elif data.startswith(b"RIFF"):
            at = 12
            while at < len(data):
                name, length = struct.unpack_from("<4sI", data, at)
                yield name, data[at + 8 : at + 8 + length]
                at += 8 + length + length % 2
    except (struct.error, IndexError):
        return
