"""Reads one thing out of an EXIF block: how the picture is turned. image_header finds the block."""

from __future__ import annotations

import struct

_ORIENTATION_TAG = 0x0112
_SHORT, _LONG = 3, 4
#: A real first directory has a dozen entries; a hostile one must not keep us.
_MAX_ENTRIES = 256
_PREFIX = b"Exif\x00\x00"


def read_orientation(block: bytes) -> int:
    """Return the EXIF orientation 1..8 of a TIFF block (with or without ``Exif`` prefix).

    Never raises: 1 (upright) when the tag is absent, out of range or the block is broken, as viewers do.
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
