"""Makes a payload of a picture: arrays become JPEG, files go as they are where the server takes them."""

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

#: What can be offered: pixels, an encoded picture, or the path of one.
Picture: TypeAlias = "Pixels | bytes | bytearray | memoryview | str | PathLike[str]"

#: Each try at fitting a picture into the message limit reduces quality first, then size.
_TRIES = ((1.0, 1.0), (0.75, 1.0), (0.75, 0.7), (0.6, 0.5), (0.5, 0.3), (0.4, 0.15))


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What the server takes, from ``welcome.limits``."""

    bytes: int = 2 << 20
    pixels: int = 16_777_216
    side_px: int = 8192

    @classmethod
    def from_welcome(cls, limits: Mapping[str, Any]) -> ImageLimits:
        """Read the limits; what the server does not state keeps its default."""
        ours = cls()
        return cls(
            bytes=int(limits.get("message_bytes", ours.bytes)) - FRAME_HEADER_BYTES,
            pixels=int(limits.get("pixels", ours.pixels)),
            side_px=int(limits.get("side_px", ours.side_px)),
        )


@dataclass(frozen=True, slots=True)
class Encoded:
    """A payload ready to send."""

    payload: bytes
    codec: Codec
    #: Boxes times this lie in the picture as it was offered.
    scale: tuple[float, float] = (1.0, 1.0)
    #: Size of the picture as offered, upright; (0, 0) when only the decoder of the payload knows.
    size: tuple[int, int] = (0, 0)


def encode(
    picture: Picture, limits: ImageLimits, *, quality: int = DEFAULT_QUALITY, max_side: int | None = None
) -> Encoded:
    """Return the payload of a picture. Raises BadInput when it cannot be read or made to fit."""
    if isinstance(picture, np.ndarray):
        return _encode_pixels(as_bgr(picture), limits, quality, max_side)
    data = read_bytes(picture)
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
    """Return what the file says about itself; None for a format that the server does not take.

    Raises BadInput for a file that is damaged so badly that the server would refuse it.
    """
    try:
        return read_header(data, AnySize())
    except ImageError as error:
        if error.code is ImageErrorCode.DAMAGED:
            raise BadInput(f"not a picture that can be decoded: {error.detail}") from error
        return None


def read_bytes(picture: bytes | bytearray | memoryview | str | PathLike[str]) -> bytes:
    """Return the encoded bytes; a path is read. Raises BadInput."""
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, bytearray | memoryview):
        return bytes(picture)
    try:
        return Path(picture).read_bytes()
    except OSError as error:
        raise BadInput(f"{picture}: {error.strerror or error}") from error


def _encode_pixels(image: Pixels, limits: ImageLimits, quality: int, max_side: int | None) -> Encoded:
    height, width = image.shape[:2]
    side = min(limits.side_px, max_side or limits.side_px)
    fit = min(1.0, side / max(width, height), (limits.pixels / (width * height)) ** 0.5)
    for softer, smaller in _TRIES:
        ratio = fit * smaller
        reduced = image
        if ratio < 1.0:
            size = (max(1, int(width * ratio)), max(1, int(height * ratio)))
            reduced = resize(image, size)
        payload = encode_jpeg(reduced, round(quality * softer))
        if len(payload) <= limits.bytes:
            scale = (width / reduced.shape[1], height / reduced.shape[0])
            return Encoded(payload, Codec.JPEG, scale, (width, height))
    raise BadInput(
        f"a picture of {width}x{height} does not fit into the server's {limits.bytes} bytes a frame"
    )
