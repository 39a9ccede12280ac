"""Decodes, resizes and encodes pictures with libjpeg-turbo and FFmpeg, so that the client needs no OpenCV."""

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

#: uint8 BGR (H, W, 3); grey (H, W) and BGRA (H, W, 4) are taken too.
Pixels: TypeAlias = npt.NDArray[np.uint8]

DEFAULT_QUALITY = 85


def decode(data: bytes) -> Pixels:
    """Decode to BGR, upright. Raises BadInput for what is not a picture."""
    pixels = _decode_jpeg(data)
    if pixels is None:
        pixels = _decode_with_ffmpeg(data)
    if pixels is None:
        raise BadInput("not a picture that can be decoded; jpeg, png, webp, bmp and tiff are")
    return _upright(pixels, _orientation(data))


def as_bgr(image: Pixels) -> Pixels:
    """Return a C-contiguous uint8 BGR array. Raises BadInput naming what is wrong with its type or shape."""
    if image.dtype != np.uint8:
        raise BadInput(f"the array is {image.dtype}; pictures are uint8, BGR, shape (height, width, 3)")
    grey = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1)
    if not image.size or not (grey or (image.ndim == 3 and image.shape[2] in (3, 4))):
        raise BadInput(f"the array has shape {image.shape}; pictures are BGR, shape (height, width, 3)")
    if grey:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(image[:, :, :3])


def resize(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Return the BGR picture at ``size`` (width, height); each pixel is the mean of the area it covers."""
    import av  # noqa: PLC0415 - most pictures go out as they are

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
        raise BadInput(f"a picture of shape {image.shape} cannot be encoded as JPEG") from error
    return encoded


def _decode_jpeg(data: bytes) -> Pixels | None:
    """Return the pixels of a JPEG; None for anything else, and for a kind that only FFmpeg may know."""
    try:
        # Not strict: a picture that is cut off is better than none.
        decoded = simplejpeg.decode_jpeg(
            data, colorspace="BGR", fastdct=False, fastupsample=False, strict=False
        )
    except ValueError:
        return None
    return np.asarray(decoded, np.uint8)


def _decode_with_ffmpeg(data: bytes) -> Pixels | None:
    import av  # noqa: PLC0415 - most pictures are JPEG

    try:
        with av.open(io.BytesIO(data)) as container:
            frame = next(container.decode(video=0))
            return np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
    except (av.error.FFmpegError, OSError, ValueError, StopIteration, IndexError):
        return None


def _orientation(data: bytes) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) if the file has none or is damaged."""
    if data[:4] in (b"II*\x00", b"MM\x00*"):  # TIFF, which EXIF is made of
        return read_orientation(data)
    try:
        return read_header(data, AnySize()).orientation
    except ImageError:
        return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation, 1 to 8: some are mirrored left to right, then turned clockwise."""
    if orientation in (2, 4, 5, 7):
        pixels = pixels[:, ::-1]
    turns = {3: 2, 4: 2, 5: 3, 6: 1, 7: 1, 8: 3}.get(orientation, 0)
    return np.ascontiguousarray(np.rot90(pixels, -turns))
