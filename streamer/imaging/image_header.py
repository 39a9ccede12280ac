"""Reads the header of an image of any accepted format.

Decoders allocate as much memory as a header claims to need, so this module enforces the limits. `decode` then
decodes the images that meet them.
"""

from __future__ import annotations

import dataclasses
import struct
from dataclasses import dataclass

from streamer.imaging.heif import read_heif
from streamer.imaging.heif_boxes import name_heif
from streamer.imaging.jpeg import read_jpeg
from streamer.imaging.other_formats import name_kind
from streamer.imaging.pixel_limits import (
    ALLOWED,
    ANY_ALLOWED,
    DECODE_BYTES,
    ImageError,
    ImageErrorCode,
    ImageHeader,
    PixelLimits,
    damaged,
    unsupported,
)
from streamer.imaging.png import SIGNATURE, read_png
from streamer.imaging.webp import read_webp

__all__ = ["ALLOWED", "ImageError", "ImageErrorCode", "ImageHeader", "Limits", "PixelLimits", "read_header"]

_SIGNATURES = (b"\xff\xd8\xff", SIGNATURE, b"RIFF")


def read_header(data: bytes | memoryview, limits: PixelLimits) -> ImageHeader:
    """Return the header of ``data`` without decoding it; this takes a few ms at most for any data.

    Raises ImageError: empty, unsupported (with the name of the format), too_large, or damaged (cut off, or
    too short for the pixels that it claims). A JPEG whose image data are cut off raises no error here:
    ``sound_bytes`` of the header says so, and decoding shows how much of the image can be read.
    """
    blob = data if isinstance(data, bytes) else bytes(data)
    if not blob:
        raise ImageError(
            ImageErrorCode.EMPTY,
            f"the image is empty (0 bytes); send a {ANY_ALLOWED} file",
        )
    try:
        if blob.startswith(b"\xff\xd8\xff"):
            return read_jpeg(blob, limits)
        if blob.startswith(SIGNATURE):
            return read_png(blob, limits)
        if blob.startswith(b"RIFF") and blob[8:12] == b"WEBP":
            return read_webp(blob, limits)
        if name_heif(blob):
            return read_heif(blob, limits)
    except (struct.error, IndexError):
        raise damaged("the file ends within its header") from None
    if any(whole.startswith(blob[: len(whole)]) and len(blob) < 12 for whole in _SIGNATURES):
        raise damaged(f"the file ends after {len(blob)} bytes")
    raise unsupported(name_kind(blob))


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds of what a client may send; sizes in bytes and pixels, times in seconds."""

    #: Bytes of one encoded image.
    image_bytes: int = 8 << 20
    #: Bytes of all images of one request together.
    total_bytes: int = 32 << 20
    #: Number of images in one request.
    max_images: int = 16
    #: Pixels of one image, and of its longer side, as its header states.
    image_px: int = 33_554_432
    image_side_px: int = 8192
    #: Pixels of a JPEG that exceeds the two limits above and is therefore reduced while it is decoded.
    reducible_px: int = 134_217_728
    #: Memory for decoding one image.
    decode_bytes: int = DECODE_BYTES
    #: Time from the request's headers to the last byte of its body.
    body_timeout_s: float = 15.0
    #: Time from the last byte of the body to the last answer of the model.
    request_timeout_s: float = 10.0

    def read_header(self, data: bytes | memoryview) -> ImageHeader:
        """Return the header of an image. Raises ImageError if the image must not be decoded."""
        return read_header(data, self)

    def for_streams(self, message_bytes: int, image_px: int) -> Limits:
        """Return the limits of frames on a live stream, which are tighter."""
        return dataclasses.replace(self, image_bytes=message_bytes, image_px=image_px)
