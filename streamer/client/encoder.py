"""Makes a payload of a picture: arrays become JPEG, files go as they are where the server takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from streamer.client.errors import BadInput
from streamer.client.image_size import image_size
from streamer.protocol.wire import FRAME_HEADER_BYTES, Codec

#: uint8 BGR (H, W, 3); grey (H, W) and BGRA (H, W, 4) are taken too.
Pixels: TypeAlias = npt.NDArray[np.uint8]
#: What can be offered: pixels, an encoded picture, or the path of one.
Picture: TypeAlias = "Pixels | bytes | bytearray | memoryview | str | PathLike[str]"

DEFAULT_QUALITY = 85
#: Each try at fitting a picture into the message limit reduces quality first, then size.
_TRIES = ((1.0, 1.0), (0.75, 1.0), (0.75, 0.7), (0.6, 0.5), (0.5, 0.3), (0.4, 0.15))


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """What the server takes, from ``welcome.limits``."""

    bytes: int = 2 << 20
    pixels: int = 16_777_216
    side_px: int = 8192

    @classmethod
    def from_welcome(cls, limits: Mapping[str, Any]) -> PictureLimits:
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
    picture: Picture, limits: PictureLimits, *, quality: int = DEFAULT_QUALITY, max_side: int | None = None
) -> Encoded:
    """Return the payload of a picture. Raises BadInput when it cannot be read or made to fit."""
    if isinstance(picture, np.ndarray):
        return _encode_pixels(as_bgr(picture), limits, quality, max_side)
    data = read_bytes(picture)
    found = image_size(data)
    side = min(limits.side_px, max_side or limits.side_px)
    if (
        found is not None
        and len(data) <= limits.bytes
        and max(found.width, found.height) <= side
        and found.width * found.height <= limits.pixels
    ):
        return Encoded(data, found.codec)
    return _encode_pixels(decode(data), limits, quality, max_side)


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


def decode(data: bytes) -> Pixels:
    """Decode to BGR, upright. Raises BadInput for what is not a picture."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:
        image = None
    if image is None:
        raise BadInput("not a picture that can be decoded; jpeg, png, webp, bmp and tiff are")
    return np.asarray(image, np.uint8)


def as_bgr(image: Pixels) -> Pixels:
    """Return a C-contiguous uint8 BGR array. Raises BadInput naming what is wrong with its type or shape."""
    if image.dtype != np.uint8:
        raise BadInput(f"the array is {image.dtype}; pictures are uint8, BGR, shape (height, width, 3)")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.size and image.ndim == 2:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), np.uint8)
    if image.size and image.ndim == 3 and image.shape[2] == 4:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2BGR), np.uint8)
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise BadInput(f"the array has shape {image.shape}; pictures are BGR, shape (height, width, 3)")
    return np.ascontiguousarray(image)


def _encode_pixels(image: Pixels, limits: PictureLimits, quality: int, max_side: int | None) -> Encoded:
    height, width = image.shape[:2]
    side = min(limits.side_px, max_side or limits.side_px)
    fit = min(1.0, side / max(width, height), (limits.pixels / (width * height)) ** 0.5)
    for softer, smaller in _TRIES:
        ratio = fit * smaller
        reduced = image
        if ratio < 1.0:
            size = (max(1, int(width * ratio)), max(1, int(height * ratio)))
            reduced = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        payload = encode_jpeg(reduced, round(quality * softer))
        if len(payload) <= limits.bytes:
            scale = (width / reduced.shape[1], height / reduced.shape[0])
            return Encoded(payload, Codec.JPEG, scale, (width, height))
    raise BadInput(
        f"a picture of {width}x{height} does not fit into the server's {limits.bytes} bytes a frame"
    )


def encode_jpeg(image: Pixels, quality: int = DEFAULT_QUALITY) -> bytes:
    """Encode BGR pixels as JPEG. Raises BadInput when they cannot be."""
    try:
        done, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, max(1, min(100, quality))])
    except cv2.error as error:
        raise BadInput(f"a picture of shape {image.shape} cannot be encoded as JPEG") from error
    if not done:
        raise BadInput(f"a picture of shape {image.shape} cannot be encoded as JPEG")
    return bytes(encoded.tobytes())
