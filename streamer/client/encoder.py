"""Makes the payload of a frame: arrays become JPEG, image files that the server accepts stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from streamer.client.errors import BadInput
from streamer.client.pixels import DEFAULT_QUALITY, Pixels, as_bgr, decode, encode_jpeg, resize
from streamer.imaging.header import AnySize
from streamer.imaging.image_header import ImageError, ImageErrorCode, ImageHeader, read_header
from streamer.protocol.wire import FRAME_HEADER_BYTES, Codec

#: An image as a caller gives it: pixels, the bytes of an image file, or its path.
ImageInput: TypeAlias = "Pixels | bytes | bytearray | memoryview | str | PathLike[str]"

#: Factors of quality and size for each attempt to fit an image into the message limit.
_REDUCTIONS = ((1.0, 1.0), (0.75, 1.0), (0.75, 0.7), (0.6, 0.5), (0.5, 0.3), (0.4, 0.15))


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Largest images that the server accepts, from ``welcome.limits``."""

    bytes: int = 2 << 20
    pixels: int = 16_777_216
    side_px: int = 8192

    @classmethod
    def from_welcome(cls, limits: Mapping[str, Any]) -> ImageLimits:
        """Read the limits. A limit that the server does not state has its default."""
        defaults = cls()
        return cls(
            bytes=int(limits.get("message_bytes", defaults.bytes)) - FRAME_HEADER_BYTES,
            pixels=int(limits.get("pixels", defaults.pixels)),
            side_px=int(limits.get("side_px", defaults.side_px)),
        )


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded image, ready to send."""

    payload: bytes
    codec: Codec
    #: Factors (x, y) that convert boxes to pixels of the original image.
    scale: tuple[float, float] = (1.0, 1.0)
    #: Width and height of the original, upright; (0, 0) when the payload was not decoded here.
    size: tuple[int, int] = (0, 0)


def encode(
    image: ImageInput, limits: ImageLimits, *, quality: int = DEFAULT_QUALITY, max_side: int | None = None
) -> Encoded:
    """Return the payload of an image.

    Raises BadInput when it cannot be read or is too large at any quality.
    """
    if isinstance(image, np.ndarray):
        return _encode_pixels(as_bgr(image), limits, quality, max_side)
    data = read_bytes(image)
    found = _header_of(data)
    side = min(limits.side_px, max_side or limits.side_px)
    if (
        found is not None
        and len(data) <= limits.bytes
        and max(found.width, found.height) <= side
        and found.width * found.height <= limits.pixels
    ):
        return Encoded(data, found.codec)
    return _encode_pixels(decode(data), limits, quality, max_side)


def _header_of(data: bytes) -> ImageHeader | None:
    """Return the header of an image file; None for a format that the server does not accept.

    Raises BadInput for a file so damaged that the server would refuse it.
    """
    try:
        return read_header(data, AnySize())
    except ImageError as error:
        if error.code is ImageErrorCode.DAMAGED:
            raise BadInput(f"not an image that can be decoded: {error.detail}") from error
        return None


def read_bytes(image: bytes | bytearray | memoryview | str | PathLike[str]) -> bytes:
    """Return the bytes of an image file, given as bytes or as its path. Raises BadInput."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    try:
        return Path(image).read_bytes()
    except OSError as error:
        raise BadInput(f"{image}: {error.strerror or error}") from error


def _encode_pixels(image: Pixels, limits: ImageLimits, quality: int, max_side: int | None) -> Encoded:
    height, width = image.shape[:2]
    side = min(limits.side_px, max_side or limits.side_px)
    fit = min(1.0, side / max(width, height), (limits.pixels / (width * height)) ** 0.5)
    for quality_factor, size_factor in _REDUCTIONS:
        ratio = fit * size_factor
        reduced = image
        if ratio < 1.0:
            size = (max(1, int(width * ratio)), max(1, int(height * ratio)))
            reduced = resize(image, size)
        payload = encode_jpeg(reduced, round(quality * quality_factor))
        if len(payload) <= limits.bytes:
            scale = (width / reduced.shape[1], height / reduced.shape[0])
            return Encoded(payload, Codec.JPEG, scale, (width, height))
    raise BadInput(
        f"an image of {width}x{height} does not fit into the {limits.bytes} bytes that the server accepts"
    )
