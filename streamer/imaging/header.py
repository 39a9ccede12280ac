"""The properties that an image's header states, and the size limits for all formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from streamer.imaging.errors import damaged, too_large
from streamer.protocol.wire import Codec


class PixelLimits(Protocol):
    """The largest size that the header of an image may state."""

    @property
    def image_px(self) -> int:
        """Most pixels in total."""

    @property
    def image_side_px(self) -> int:
        """Most pixels of the longer side."""


@dataclass(frozen=True, slots=True)
class AnySize:
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
