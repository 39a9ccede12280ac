"""Decodes, resizes and encodes images with libjpeg-turbo and FFmpeg, so that the client needs no OpenCV."""

from __future__ import annotations

import io
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import simplejpeg

from streamer.client.errors import BadInput
from streamer.imaging.exif import read_orientation
from streamer.imaging.header import AnySize
from streamer.imaging.image_header import ImageError, read_header

#: uint8 BGR (H, W, 3). :func:`as_bgr` also accepts grey (H, W) and BGRA (H, W, 4).
Pixels: TypeAlias = npt.NDArray[np.uint8]

DEFAULT_QUALITY = 85


def decode(data: bytes) -> Pixels:
    """Decode an image file to upright BGR pixels. Raises BadInput when it is not an image."""
    pixels = _decode_jpeg(data)
    if pixels is None:
        pixels = _decode_with_ffmpeg(data)
    if pixels is None:
        raise BadInput("not an image that can be decoded; supported are JPEG, PNG, WebP, BMP and TIFF")
    return _upright(pixels, _orientation(data))


def as_bgr(image: Pixels) -> Pixels:
    """Return a C-contiguous uint8 BGR array. Raises BadInput naming what is wrong with its type or shape."""
    if image.dtype != np.uint8:
        raise BadInput(f"the array is {image.dtype}; images are uint8, BGR, shape (height, width, 3)")
    grey = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
    if not image.size or not (grey or (image.ndim == 3 and image.shape[2] in (3, 4))):
        raise BadInput(f"the array has shape {image.shape}; images are BGR, shape (height, width, 3)")
    if grey:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(image[:, :, :3])


def resize(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Return the BGR image at ``size`` (width, height). Each pixel is the mean of the area that it covers."""
    import av  # noqa: PLC0415 - PyAV, which most images do not need

    frame = av.VideoFrame.from_ndarray(image, format="bgr24")
    resized = frame.reformat(width=size[0], height=size[1], interpolation="AREA")
    return np.asarray(resized.to_ndarray(format="bgr24"), np.uint8)


def encode_jpeg(image: Pixels, quality: int = DEFAULT_QUALITY) -> bytes:
    """Encode BGR pixels as JPEG. Raises BadInput when they cannot be."""
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
        # Not strict, so that a truncated image is decoded as far as it goes.
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


def _orientation(data: bytes) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) if the file has none or is damaged."""
    if data[:4] in (b"II*\x00", b"MM\x00*"):  # a TIFF file has the structure of EXIF data
        return read_orientation(data)
    try:
        return read_header(data, AnySize()).orientation
    except ImageError:
        return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Return the pixels mirrored and rotated clockwise as their EXIF orientation (1 to 8) demands."""
    if orientation in (2, 4, 5, 7):
        pixels = pixels[:, ::-1]
    turns = {3: 2, 4: 2, 5: 3, 6: 1, 7: 1, 8: 3}.get(orientation, 0)
    return np.ascontiguousarray(np.rot90(pixels, -turns))
