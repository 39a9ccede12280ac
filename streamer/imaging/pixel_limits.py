"""What the header of an image says, the limits for it, and the error of an image that is refused."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from streamer.protocol.wire import Codec

ALLOWED = "JPEG, PNG and WebP"


class ImageErrorCode(StrEnum):
    """Reasons why an image is refused."""

    EMPTY = "empty"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too_large"
    DAMAGED = "damaged"


class ImageError(Exception):
    """An image is refused; the text says what was found and what is allowed."""

    def __init__(self, code: ImageErrorCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def damaged(what: str) -> ImageError:
    """Return the error for a file that breaks the rules of its format."""
    return ImageError(ImageErrorCode.DAMAGED, f"the image is damaged: {what}")


def unsupported(what: str) -> ImageError:
    """Return the error for a file in an unsupported format."""
    return ImageError(ImageErrorCode.UNSUPPORTED, f"found {what}; allowed are {ALLOWED}")


def too_large(what: str) -> ImageError:
    """Return the error for an image that exceeds a limit; ``what`` names the limit."""
    return ImageError(ImageErrorCode.TOO_LARGE, what)


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


class PixelLimits(Protocol):
    """The largest size that the header of an image may state."""

    @property
    def image_px(self) -> int:
        """Most pixels in total."""

    @property
    def image_side_px(self) -> int:
        """Most pixels of the longer side."""


@dataclass(frozen=True, slots=True)
class NoPixelLimits:
    """Limits that every image meets, for images whose size and cost were checked when they arrived."""

    image_px: int = 1 << 60
    image_side_px: int = 65_535


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image's header states. ``width`` and ``height`` are as stored, before EXIF orientation."""

    codec: Codec
    width: int
    height: int
    #: EXIF orientation, 1 (upright) to 8.
    orientation: int = 1
    #: Whether it is an arithmetic-coded JPEG, whose decoder silently reads zeros in place of missing data.
    arithmetic: bool = False
    #: Number of bytes before the damage in a damaged JPEG. The decoder gets no bytes after them, because they
    #: were not checked. 0 if the file is complete, as far as its structure shows.
    sound_bytes: int = 0
    #: Upper bound of the memory in bytes that `decode` takes at one time for this image, including its pixels
    #: but not ``data``. It is close to the measured peak, except for lossless WebP (see `webp`). The
    #: ``rotation`` of a frame is not known here; if there is one, decoding takes at least `turn_bytes`.
    decode_bytes: int = 0

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height in pixels once the orientation is applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def turn_bytes(width: int, height: int) -> int:
    """Return the bytes of memory needed to turn an image: its BGR pixels before and after."""
    return 6 * width * height


def check_size(width: int, height: int, limits: PixelLimits) -> None:
    """Raise ImageError if an image has no pixels, or more than ``limits`` allow."""
    if width < 1 or height < 1:
        raise damaged(f"its header says {width}x{height} pixels")
    if max(width, height) > limits.image_side_px or width * height > limits.image_px:
        raise too_large(
            f"the image is {width}x{height} pixels ({width * height / 1e6:.1f} megapixels); allowed are "
            f"{limits.image_side_px} pixels a side and {limits.image_px / 1e6:.1f} megapixels"
        )
