"""Reads the orientation from an EXIF block, which the readers of the formats find in the file."""

from __future__ import annotations

import struct

_ORIENTATION_TAG = 0x0112
_SHORT, _LONG = 3, 4
#: Real files have about a dozen entries in the first directory; the limit bounds the work for hostile ones.
_MAX_ENTRIES = 256
_PREFIX = b"Exif\x00\x00"


def read_orientation(block: bytes) -> int:
    """Return the EXIF orientation 1..8 of a TIFF block (with or without ``Exif`` prefix).

    Never raises: returns 1 (upright) if the tag is absent or out of range or the block is broken, as image
    viewers do.
    """
    tiff = block.removeprefix(_PREFIX)
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        magic, directory = struct.unpack_from(order + "HI", tiff, 2)
        if magic != 42:
            return 1
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for index in range(min(entries, _MAX_ENTRIES)):
            tag, kind, count = struct.unpack_from(order + "HHI", tiff, directory + 2 + 12 * index)
            if tag == _ORIENTATION_TAG:
                if count != 1 or kind not in (_SHORT, _LONG):
                    return 1
                value: int
                (value,) = struct.unpack_from(
                    order + ("H" if kind == _SHORT else "I"), tiff, directory + 10 + 12 * index
                )
                return value if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
