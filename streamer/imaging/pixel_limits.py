"""Defines the header of an image, the limits that it must meet, and the error for a refused image."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from streamer.protocol.wire import Codec

ALLOWED = "JPEG, PNG, WebP, HEIC and AVIF"
#: The same, after "a".
ANY_ALLOWED = ALLOWED.replace(" and ", " or ")


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


#: By EXIF orientation: whether to mirror left to right first, and clockwise quarter turns after that.
ORIENTATIONS = {
    1: (False, 0),
    2: (True, 0),
    3: (False, 2),
    4: (True, 2),
    5: (True, 3),
    6: (False, 1),
    7: (True, 1),
    8: (False, 3),
}
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
    """States the largest size that the header of an image may claim, and the most memory for decoding it."""

    @property
    def image_px(self) -> int:
        """Most pixels in total."""

    @property
    def image_side_px(self) -> int:
        """Most pixels of the longer side."""

    @property
    def reducible_px(self) -> int:
        """Most pixels of a JPEG that exceeds the limits above and is reduced while it is decoded."""

    @property
    def decode_bytes(self) -> int:
        """Most memory in bytes that decoding one image may take."""


#: Most memory in bytes for decoding one image, unless the settings say otherwise: enough for a progressive
#: JPEG of 12 megapixels with 4:2:0 (50 MB), and for a 4K image in WebP (54 MB).
DECODE_BYTES = 56 << 20


@dataclass(frozen=True, slots=True)
class NoPixelLimits:
    """Holds limits that every image meets, for images whose size and cost were checked when they arrived."""

    image_px: int = 1 << 60
    image_side_px: int = 65_535
    reducible_px: int = 1 << 60
    decode_bytes: int = 1 << 60


#: Denominators of the scales at which a JPEG can be decoded.
SCALES = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Holds what an image's header states; ``width`` and ``height`` do not include the EXIF orientation."""

    codec: Codec
    width: int
    height: int
    #: EXIF orientation, 1 (upright) to 8.
    orientation: int = 1
    #: Whether it is an arithmetic-coded JPEG, whose decoder silently reads zeros in place of missing data.
    arithmetic: bool = False
    #: Number of bytes before the damage in a damaged JPEG. The decoder does not get the bytes after them,
    #: because they were not checked. 0 if the structure of the file shows no damage.
    sound_bytes: int = 0
    #: Upper bound of the memory in bytes that `decode` takes at one time for all pixels of this image, not
    #: counting ``data``. It is close to the measured peak, except for lossless WebP (see `webp`). The header
    #: does not know the ``rotation`` of a frame; if there is one, decoding takes at least `turn_bytes`.
    decode_bytes: int = 0
    #: The name of this kind of image in error messages, such as "progressive JPEG".
    kind: str = "image"
    #: Memory in bytes that decoding takes besides the pixels, and the bytes for each pixel. `decode_memory`
    #: computes from them the memory for a reduced image or for some of the rows. Both are 0 if only
    #: ``decode_bytes`` is known. With 3 bytes for each pixel, `decode` may leave out rows.
    beside_bytes: int = 0
    pixel_bytes: int = 0
    #: Whether its decoder can reduce it to 1/2, 1/4 or 1/8 of its size.
    reducible: bool = False
    #: The scale denominator, one of `SCALES`, with which it must be decoded because it has more pixels than
    #: the limits allow.
    reduction: int = 1
    #: Whether its pixels are turned upright in parts while they are decoded, which takes no further memory.
    turned_in_parts: bool = False
    #: Memory in bytes that decoding such an image takes before it writes the first pixel.
    first_bytes: int = 0

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height in pixels once the orientation is applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def turn_bytes(width: int, height: int) -> int:
    """Return the bytes of memory needed to turn an image: its BGR pixels before and after turning."""
    return 6 * width * height


def check_size(width: int, height: int, limits: PixelLimits, kind: str = "") -> int:
    """Return the scale denominator, one of `SCALES`, with which an image of this size meets ``limits``.

    ``kind`` is empty for an image that can be reduced while it is decoded. For any other image it is the name
    of the image in error messages, and the result is 1. Raises ImageError if the image has no pixels, or more
    than ``limits`` allow.
    """
    if width < 1 or height < 1:
        raise damaged(f"its header says {width}x{height} pixels")
    px = width * height
    for scale in SCALES[:1] if kind or px > limits.reducible_px else SCALES:
        across, down = -(-width // scale), -(-height // scale)
        if max(across, down) <= limits.image_side_px and across * down <= limits.image_px:
            return scale
    text = (
        f"the image is {width}x{height} pixels ({px / 1e6:.1f} megapixels); allowed are "
        f"{limits.image_side_px} pixels a side and {limits.image_px / 1e6:.1f} megapixels"
    )
    if limits.reducible_px > limits.image_px:
        most = f"{limits.reducible_px / 1e6:.1f} megapixels"
        if not kind:
            text += f", or {most} of a JPEG, which is then decoded at a reduced size"
        elif px <= limits.reducible_px:
            text += f"; {kind} cannot be reduced while it is decoded, but a baseline JPEG of up to {most} can"
    raise too_large(text)
