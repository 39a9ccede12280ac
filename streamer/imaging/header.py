"""What an image says of itself, and the limits that hold for every format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from streamer.imaging.errors import damaged, too_large
from streamer.protocol.wire import Codec


class PixelLimits(Protocol):
    """What an image may claim at most."""

    @property
    def image_px(self) -> int:
        """Pixels in all."""

    @property
    def image_side_px(self) -> int:
        """Pixels of the longer side."""


@dataclass(frozen=True, slots=True)
class AnySize:
    """Limits that every image meets: for bytes whose size and cost were judged when they came in."""

    image_px: int = 1 << 60
    image_side_px: int = 65_535


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image says of itself. ``width`` and ``height`` are as stored, before EXIF orientation."""

    codec: Codec
    width: int
    height: int
    #: EXIF orientation, 1 (upright) to 8.
    orientation: int = 1
    #: A JPEG whose decoder takes zeros for missing data, without a sign.
    arithmetic: bool = False
    #: Where the sound part of a damaged JPEG ends, in bytes. A decoder gets nothing from behind it, because
    #: nobody has judged that. 0: the file is whole, as far as its structure shows.
    sound_bytes: int = 0
    #: Most memory in bytes that `decode` takes at one time for this image, including its pixels but not
    #: ``data``. An upper bound; close to the measured peak, except for lossless WebP (see `webp`). The
    #: ``rotation`` of a frame is not known here; with one, at least `turn_bytes` are needed.
    decode_bytes: int = 0

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height in pixels once the orientation is applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def turn_bytes(width: int, height: int) -> int:
    """Return the memory in bytes while a picture is turned: the BGR pixels before and after."""
    return 6 * width * height


def check_size(width: int, height: int, limits: PixelLimits) -> None:
    """Raise ImageError when a picture has no pixels, or more than ``limits`` allow."""
    if width < 1 or height < 1:
        raise damaged(f"its header says {width}x{height} pixels")
    if max(width, height) > limits.image_side_px or width * height > limits.image_px:
        raise too_large(
            f"the image is {width}x{height} pixels ({width * height / 1e6:.1f} megapixels); allowed are "
            f"{limits.image_side_px} pixels a side and {limits.image_px / 1e6:.1f} megapixels"
        )
