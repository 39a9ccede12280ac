"""Decodes images to upright pixels, after `image_header` has checked them."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from streamer.imaging.decode_memory import choose_scale, is_sampled, scaled
from streamer.imaging.jpeg_pixels import UnsupportedSampling, check_rows, decode_jpeg
from streamer.imaging.pixel_limits import ImageHeader, damaged
from streamer.imaging.png import bare_png
from streamer.imaging.png_strips import decode_strips
from streamer.imaging.sampled_pixels import LEAST_BYTES, Rows, sampled_memory, sampled_rows
from streamer.imaging.turning import Turning
from streamer.imaging.webp import WebpImage, bare_webp
from streamer.protocol.wire import Codec

Image = npt.NDArray[np.uint8]

#: `choose_reduction` leaves at least this many pixels for each pixel of the model input, on each side.
_REDUCED_MARGIN = 2.0


@dataclass(frozen=True, slots=True)
class Decoded:
    """Holds a decoded image."""

    #: Upright, uint8 BGR (height, width, 3).
    pixels: Image
    #: Whether a part is missing or wrong; missing parts are grey, or lack fine details.
    damaged: bool = False
    #: Factor by which each side of the image was reduced while it was decoded: 1, 2, 4 or 8.
    reduced: int = 1


def decode(
    data: bytes | memoryview,
    header: ImageHeader,
    *,
    rotation: int = 0,
    target: tuple[int, int] | None = None,
    reduce: bool = False,
    resized: tuple[int, int] | None = None,
    most_bytes: int | None = None,
) -> Decoded:
    """Return the image upright; ``header`` is what `read_header` returned for the same ``data``.

    The orientation of ``header`` is applied first, for PNG and WebP too, so that all formats follow one rule;
    it is that of EXIF, except for HEIC and AVIF, which have properties for it. Then ``rotation`` clockwise
    quarter turns are applied. Greyscale, palette and CMYK images are converted to BGR, samples of 10 to 16
    bits to their upper 8 bits; alpha is dropped without blending, and only the first frame of an animation is
    decoded. The decoders of all formats but JPEG get data that contain only that image, because decoding
    metadata, profiles and further frames could take unbounded time and memory.

    With ``reduce``, a JPEG much larger than ``target`` (width and height of the model input) is decoded at
    1/2, 1/4 or 1/8 of its size. This saves a third of the decode time. It is off by default, because it
    moves boxes: YOLOX-nano and YOLOv9-t were compared at full and reduced size on three photographs and
    their enlargements. With a margin (see `_REDUCED_MARGIN`) of 2, IoU fell to 0.92 and scores differed by up
    to 0.05; with margins of 4.5 and more, the values were still 0.97 and 0.022. No margin achieves 0.98 and
    0.02, because linear resizing samples different pixels of a reduced image.

    ``resized`` is the width and height to which the caller will resize the upright image with `cv2.resize`
    and INTER_LINEAR. If the image is large and not decoded as a whole (as WebP is), the result then contains
    only the pixels that this resizing reads; the other pixels are undefined and take no memory.

    With ``most_bytes``, decoding takes at most this much memory: a JPEG is reduced if that is enough, and
    other images are refused.

    A damaged JPEG is returned and marked as damaged if at least three quarters of it can be read. Opens no
    files and starts no threads. Raises ImageError: too_large if decoding would take more memory, damaged if
    the data do not contain the image that the header claims.
    """
    least = header.reduction
    if reduce and target is not None and not header.sound_bytes:
        least = max(least, choose_reduction(header, rotation, target))
    turning = Turning.of(header.orientation, rotation)
    scale = choose_scale(header, turning, resized, least, most_bytes)
    if header.turned_in_parts:
        return Decoded(_in_parts(data, header, turning, resized))
    width, height = scaled(header, scale)
    rows, space = None, None
    if resized is not None and is_sampled(header) and 3 * width * height >= LEAST_BYTES:
        # Smaller images are decoded with all their rows, because finding the needed rows takes 30 us.
        rows = turning.stored_rows(height, width, resized)
        space = sampled_memory(height, width, rows)
    try:
        image, is_damaged = _stored_pixels(data, header, (width, height), rows, space, most_bytes)
    except (struct.error, IndexError):
        raise damaged("its data differ from its header") from None
    if image.shape != (height, width, 3):
        raise damaged(f"its header says {header.width}x{header.height} pixels, its data differs")
    if space is None or resized is None:
        return Decoded(turning.upright(image), is_damaged, scale)
    return Decoded(turning.upright_sampled(image, resized), is_damaged, scale)


def _in_parts(
    data: bytes | memoryview, header: ImageHeader, turning: Turning, resized: tuple[int, int] | None
) -> Image:
    """Decode an image whose parts are turned one by one. Raises ImageError."""
    # The other processes that import this file decode no such image, so they do without FFmpeg.
    from streamer.imaging.heif_pixels import decode_heif  # noqa: PLC0415

    width, height = turning.upright_size(header.width, header.height)
    space = None
    if resized is not None and 3 * width * height >= LEAST_BYTES:
        space = sampled_memory(height, width, sampled_rows(height, resized[1]))
    upright = _memory_of((width, height)) if space is None else space
    decode_heif(bytes(data), turning, upright)
    return upright


def _stored_pixels(
    data: bytes | memoryview,
    header: ImageHeader,
    size: tuple[int, int],
    rows: Rows | None,
    space: Image | None,
    most_bytes: int | None,
) -> tuple[Image, bool]:
    """Return the pixels in stored orientation, and whether they are damaged. Raises ImageError.

    ``size`` is their width and height; ``rows`` are the rows that are needed, None for all. An undamaged JPEG
    or a large PNG is decoded into ``space`` if it is given.
    """
    if header.codec is Codec.JPEG:
        try:
            return decode_jpeg(data, header, size, space, most_bytes)
        except UnsupportedSampling:
            if header.sound_bytes:
                raise damaged("it has no end marker, or is broken in its scans") from None
            # OpenCV does not report libjpeg's warnings, so look for missing rows. An image whose first and
            # last row are equal may really be grey all over, so it does not count as damaged.
            image = _opencv(data, header)
            return image, bool((image[0] != image[-1]).any()) and check_rows(image)
    if header.codec is Codec.PNG and header.pixel_bytes:
        image = _memory_of(size) if space is None else space
        decode_strips(data, image, np.arange(size[1]) if rows is None else rows)
        return image, False
    if header.codec is Codec.PNG:
        return _opencv(bare_png(bytes(data)), header), False
    bare, stored = bare_webp(bytes(data))
    return _on_canvas(_opencv(bare, header), stored, header), False


def _memory_of(size: tuple[int, int]) -> Image:
    return np.empty((size[1], size[0], 3), np.uint8)


def _on_canvas(image: Image, stored: WebpImage, header: ImageHeader) -> Image:
    """Return the first frame of an animation in its place on a black canvas."""
    if image.shape[:2] == (header.height, header.width) or image.shape[:2] != (stored.height, stored.width):
        return image
    canvas = np.zeros((header.height, header.width, 3), np.uint8)
    right, bottom = stored.left + stored.width, stored.top + stored.height
    canvas[stored.top : bottom, stored.left : right] = image
    return canvas


def _opencv(data: bytes | memoryview, header: ImageHeader) -> Image:
    """Decode with OpenCV. Raises ImageError, or MemoryError."""
    try:
        # `Turning` applies the orientation together with `rotation`; OpenCV would need an extra pass.
        image: Image | None = cv2.imdecode(
            np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(f"no memory for {header.width}x{header.height} pixels") from error
        image = None
    if image is None:
        raise damaged("it cannot be decoded")
    return image


def choose_reduction(header: ImageHeader, rotation: int, target: tuple[int, int]) -> int:
    """Return the largest DCT scale denominator (1, 2, 4, 8) that leaves enough pixels for ``target``.

    Only JPEG decoders can scale while decoding, so the result for other formats is 1.
    """
    if not header.reducible:
        return 1
    width, height = header.upright_size
    if rotation % 2:
        width, height = height, width
    # Letterboxing scales both sides by the smaller ratio, stretching scales each side by its own; the smaller
    # ratio is safe for both.
    spare = min(width / target[0], height / target[1])
    return max((d for d in (2, 4, 8) if spare / d >= _REDUCED_MARGIN), default=1)
