"""Makes the payload of a frame: arrays become JPEG, image files that the server accepts stay as they are."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import simplejpeg

from streamer.client.errors import BadInput
from streamer.core.extras import explain_missing
from streamer.imaging.heif_boxes import name_heif
from streamer.imaging.image_header import ALLOWED, ImageError, ImageErrorCode, ImageHeader, read_header
from streamer.imaging.pixel_limits import NoPixelLimits, read_orientation
from streamer.protocol.wire import FRAME_HEADER_BYTES, Codec

#: uint8 BGR (H, W, 3). :func:`as_bgr` also accepts grey (H, W) and BGRA (H, W, 4).
Pixels: TypeAlias = npt.NDArray[np.uint8]

DEFAULT_QUALITY = 85


def decode(data: bytes) -> Pixels:
    """Decode an image file to upright BGR pixels. Raises BadInput when it is not an image."""
    if name_heif(data):
        return _decode_heif(data)
    pixels = _decode_jpeg(data)
    if pixels is None:
        pixels = _decode_with_ffmpeg(data)
    if pixels is None:
        raise BadInput(f"not an image that can be decoded; supported are {ALLOWED}, BMP and TIFF")
    return _upright(pixels, _orientation(data))


def check_input(image: object) -> None:
    """Raise BadInput naming what is wrong with the type, or with the shape of an array. Reads no pixels."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise BadInput(f"the array is {image.dtype}; images are uint8, BGR, shape (height, width, 3)")
        if not image.size or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))):
            raise BadInput(f"the array has shape {image.shape}; images are BGR, shape (height, width, 3)")
    elif image is None:
        raise BadInput("the image is None: a camera that has no frame returns that; offer only frames")
    elif not isinstance(image, bytes | bytearray | memoryview | str | PathLike):
        raise BadInput(
            f"the image is a {type(image).__name__}; images are uint8 arrays, bytes of a file, or its path"
        )


def as_bgr(image: Pixels) -> Pixels:
    """Return a C-contiguous uint8 BGR array. Raises BadInput naming what is wrong with its type or shape."""
    check_input(image)
    if image.ndim == 2 or image.shape[2] == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(image[:, :, :3])


def resize(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Return the BGR image at ``size`` (width, height). Each pixel is the mean of the area that it covers."""
    import av  # noqa: PLC0415 - PyAV, which most images do not need

    frame = av.VideoFrame.from_ndarray(image, format="bgr24")
    resized = frame.reformat(width=size[0], height=size[1], interpolation="AREA")
    return np.asarray(resized.to_ndarray(format="bgr24"), np.uint8)


def encode_jpeg(image: Pixels, quality: int = DEFAULT_QUALITY) -> bytes:
    """Encode BGR pixels as JPEG. Raises BadInput when the encoder refuses them."""
    try:
        encoded: bytes = simplejpeg.encode_jpeg(
            np.ascontiguousarray(image),
            quality=max(1, min(100, quality)),
            colorspace="BGR",
            colorsubsampling="420",
            fastdct=False,
        )
    except ValueError as error:
        raise BadInput(f"an image of shape {image.shape} cannot be encoded as JPEG") from error
    return encoded


def _decode_jpeg(data: bytes) -> Pixels | None:
    """Return the pixels of a JPEG; None for other formats and for JPEGs that libjpeg-turbo refuses."""
    try:
        # Without `strict`, libjpeg-turbo decodes the part of a truncated image that is there.
        decoded = simplejpeg.decode_jpeg(
            data, colorspace="BGR", fastdct=False, fastupsample=False, strict=False
        )
    except ValueError:
        return None
    return np.asarray(decoded, np.uint8)


def _decode_with_ffmpeg(data: bytes) -> Pixels | None:
    import av  # noqa: PLC0415 - PyAV, which JPEG does not need

    try:
        with av.open(io.BytesIO(data)) as container:
            frame = next(container.decode(video=0))
            return np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
    except (av.error.FFmpegError, OSError, ValueError, StopIteration, IndexError):
        return None


def _decode_heif(data: bytes) -> Pixels:
    """Decode a HEIC or AVIF, which FFmpeg alone would decode as one of its tiles. Raises BadInput."""
    if sys.platform != "linux":
        raise BadInput(f"a {name_heif(data)} image that must be decoded here, which works on Linux only")
    try:
        from streamer.imaging.heif_pixels import decode_heif  # noqa: PLC0415 - it needs OpenCV
        from streamer.imaging.turning import Turning  # noqa: PLC0415
    except ModuleNotFoundError as error:
        text = explain_missing(error)
        if text is None:
            raise
        raise BadInput(
            f"a {name_heif(data)} image that must be decoded here, to show it or to send it smaller; {text}"
        ) from error
    try:
        header = read_header(data, NoPixelLimits())
        width, height = header.upright_size
        pixels: Pixels = np.empty((height, width, 3), np.uint8)
        decode_heif(data, Turning.of(header.orientation, 0), pixels)
    except ImageError as error:
        raise BadInput(f"not an image that can be decoded: {error.detail}") from error
    return pixels


def _orientation(data: bytes) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) if the file has none or is damaged."""
    if data[:4] in (b"II*\x00", b"MM\x00*"):  # a TIFF file has the structure of EXIF data
        return read_orientation(data)
    try:
        return read_header(data, NoPixelLimits()).orientation
    except ImageError:
        return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Return the upright image: mirror and rotate the pixels according to their EXIF orientation (1 to 8)."""
    if orientation in (2, 4, 5, 7):
        pixels = pixels[:, ::-1]
    turns = {3: 2, 4: 2, 5: 3, 6: 1, 7: 1, 8: 3}.get(orientation, 0)
    return np.ascontiguousarray(np.rot90(pixels, -turns))


#: An image as a caller gives it: pixels, the bytes of an image file, or its path.
ImageInput: TypeAlias = "Pixels | bytes | bytearray | memoryview | str | PathLike[str]"

#: Factors for quality and size in each attempt to fit an image into the message limit.
_REDUCTIONS = ((1.0, 1.0), (0.75, 1.0), (0.75, 0.7), (0.6, 0.5), (0.5, 0.3), (0.4, 0.15))


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Largest images that the server accepts, from ``welcome.limits``."""

    bytes: int = 2 << 20
    pixels: int = 16_777_216
    side_px: int = 8192

    @classmethod
    def from_welcome(cls, limits: Mapping[str, Any]) -> ImageLimits:
        """Read the limits; use the default for a limit that the server does not state."""
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

    Raises BadInput when the image cannot be read, or exceeds the limits even at the lowest quality and size.
    """
    check_input(image)
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

    Raises BadInput for a file whose damage shows without decoding it.
    """
    try:
        return read_header(data, NoPixelLimits())
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
    except ValueError as error:  # a zero byte in the path
        raise BadInput(f"{str(image)!r} is not a path: {error}") from error


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
