"""Checks the header of a JPEG, PNG or WebP before any decoder gets the image; refuses all other formats.

Decoders allocate as much memory as a header claims to need, so the limits are enforced here. `decode` then
decodes the images that passed.
"""

from __future__ import annotations

import struct

from streamer.imaging.errors import ALLOWED, ImageError, ImageErrorCode, damaged, unsupported
from streamer.imaging.header import ImageHeader, PixelLimits
from streamer.imaging.jpeg import read_jpeg
from streamer.imaging.png import SIGNATURE, read_png
from streamer.imaging.sniff import name_kind
from streamer.imaging.webp import read_webp

__all__ = ["ALLOWED", "ImageError", "ImageErrorCode", "ImageHeader", "PixelLimits", "read_header"]

_SIGNATURES = (b"\xff\xd8\xff", SIGNATURE, b"RIFF")


def read_header(data: bytes | memoryview, limits: PixelLimits) -> ImageHeader:
    """Return the header of ``data`` without decoding it; this takes a few ms at most for any data.

    Raises ImageError: empty, unsupported (with the name of the format), too_large, or damaged (cut off, or
    too short for the pixels that it claims). A JPEG whose image data are cut off raises no error here:
    ``sound_bytes`` of the header says so, and decoding shows how much of the image can be read.
    """
    blob = data if isinstance(data, bytes) else bytes(data)
    if not blob:
        raise ImageError(ImageErrorCode.EMPTY, "the image is empty (0 bytes); send a JPEG, PNG or WebP file")
    try:
        if blob.startswith(b"\xff\xd8\xff"):
            return read_jpeg(blob, limits)
        if blob.startswith(SIGNATURE):
            return read_png(blob, limits)
        if blob.startswith(b"RIFF") and blob[8:12] == b"WEBP":
            return read_webp(blob, limits)
    except (struct.error, IndexError):
        raise damaged("the file ends within its header") from None
    if any(whole.startswith(blob[: len(whole)]) and len(blob) < 12 for whole in _SIGNATURES):
        raise damaged(f"the file ends after {len(blob)} bytes")
    raise unsupported(name_kind(blob))
