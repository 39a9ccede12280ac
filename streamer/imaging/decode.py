"""Decodes images to upright pixels, after `image_header` has checked them."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from streamer.imaging.jpeg_pixels import UnsupportedSampling, check_rows, decode_jpeg
from streamer.imaging.pixel_limits import ImageHeader, damaged
from streamer.imaging.png import bare_png
from streamer.imaging.sampled_pixels import LEAST_BYTES, sampled_memory
from streamer.imaging.turning import Turning
from streamer.imaging.webp import WebpImage, bare_webp
from streamer.protocol.wire import Codec

Image = npt.NDArray[np.uint8]

_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
#: A reduced image has on each side at least this many pixels for each pixel of the model input.
_REDUCED_MARGIN = 2.0


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded image."""

    #: Upright, uint8 BGR (height, width, 3).
    pixels: Image
    #: Whether a part is missing or wrong; missing parts are grey, or lack fine details.
    damaged: bool = False


def decode(
    data: bytes | memoryview,
    header: ImageHeader,
    *,
    rotation: int = 0,
    target: tuple[int, int] | None = None,
    reduce: bool = False,
    resized: tuple[int, int] | None = None,
) -> Decoded:
    """Return the image upright; ``header`` is what `read_header` returned for the same ``data``.

    The EXIF orientation of ``header`` is applied first, for PNG and WebP too, so that all formats follow one
    rule; then ``rotation`` clockwise quarter turns are applied. Greyscale, palette and CMYK images are
    converted to BGR, 16-bit samples to their upper 8 bits; alpha is dropped without blending, and only the
    first frame of an animation is decoded. The decoders of PNG and WebP get a file with nothing but that
    image, because decoding metadata, profiles and further frames could cost any amount.

    With ``reduce``, a JPEG much larger than ``target`` (width and height of the model input) is decoded at
    1/2, 1/4 or 1/8 of its size. This saves a third of the decode time. It is off by default, because boxes
    move: YOLOX-nano and YOLOv9-t were compared at full and reduced size on three photographs and their
    enlargements. With a margin of 2, IoU fell to 0.92 and scores differed by up to 0.05; with margins of 4.5
    and more, these were still 0.97 and 0.022. Linear resizing samples other pixels of a reduced image, so no
    margin achieves 0.98 and 0.02.

    With ``resized``, only those pixels of a large JPEG are valid that `cv2.resize` with INTER_LINEAR reads to
    make an image of this width and height from the upright one; the others take no memory.

    A damaged JPEG is returned and marked as damaged if at least three quarters of it can be read. Opens no
    files and starts no threads. Raises ImageError (damaged) if the data do not contain the image that the
    header claims.
    """
    denominator = 1
    if reduce and target is not None and not header.sound_bytes:
        denominator = choose_reduction(header, rotation, target)
    turning = Turning.of(header.orientation, rotation)
    space = None
    if resized is not None and denominator == 1:
        space = _sampled_space(header, turning, resized)
    try:
        image, is_damaged = _stored_pixels(data, header, denominator, space)
    except (struct.error, IndexError):
        raise damaged("its data differ from its header") from None
    expected = (-(-header.height // denominator), -(-header.width // denominator), 3)
    if image.shape != expected:
        raise damaged(f"its header says {header.width}x{header.height} pixels, its data differs")
    if space is None or resized is None:
        return Decoded(turning.upright(image), is_damaged)
    return Decoded(turning.upright_sampled(image, resized), is_damaged)


def _sampled_space(header: ImageHeader, turning: Turning, resized: tuple[int, int]) -> Image | None:
    """Return memory for the stored pixels that keeps what resizing reads; None if all have to be kept.

    Missing data of an arithmetic-coded JPEG are found by comparing all of its pixels.
    """
    if header.codec is not Codec.JPEG or header.sound_bytes or header.arithmetic:
        return None
    if header.width * header.height * 3 < LEAST_BYTES:  # first, because finding the rows takes 30 us
        return None
    rows = turning.stored_rows(header.height, header.width, resized)
    return sampled_memory(header.height, header.width, rows)


def _stored_pixels(
    data: bytes | memoryview, header: ImageHeader, denominator: int, space: Image | None
) -> tuple[Image, bool]:
    """Return the pixels in stored orientation, and whether they are damaged. Raises ImageError.

    A sound JPEG is decoded into ``space`` if there is one.
    """
    if header.codec is Codec.JPEG:
        if denominator > 1:
            return _opencv(data, header, _FLAGS[denominator]), False
        try:
            return decode_jpeg(data, header, space)
        except UnsupportedSampling:
            # OpenCV does not report libjpeg's warnings, so look for missing rows. An image that is grey all
            # over is not damaged.
            image = _opencv(data, header)
            return image, bool((image[0] != image[-1]).any()) and check_rows(image)
    if header.codec is Codec.PNG:
        return _opencv(bare_png(bytes(data)), header), False
    bare, stored = bare_webp(bytes(data))
    return _on_canvas(_opencv(bare, header), stored, header), False


def _on_canvas(image: Image, stored: WebpImage, header: ImageHeader) -> Image:
    """Return the first frame of an animation in its place on a black canvas."""
    if image.shape[:2] == (header.height, header.width) or image.shape[:2] != (stored.height, stored.width):
        return image
    canvas = np.zeros((header.height, header.width, 3), np.uint8)
    right, bottom = stored.left + stored.width, stored.top + stored.height
    canvas[stored.top : bottom, stored.left : right] = image
    return canvas


def _opencv(data: bytes | memoryview, header: ImageHeader, flags: int = cv2.IMREAD_COLOR) -> Image:
    """Decode with OpenCV. Raises ImageError, or MemoryError."""
    try:
        # `Turning` applies the orientation together with `rotation`; OpenCV would need an extra pass.
        image: Image | None = cv2.imdecode(
            np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION
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
    if header.codec is not Codec.JPEG:
        return 1
    width, height = header.upright_size
    if rotation % 2:
        width, height = height, width
    # Letterboxing scales both sides by the smaller ratio, stretching scales each side by its own; the smaller
    # ratio is safe for both.
    spare = min(width / target[0], height / target[1])
    return max((d for d in (2, 4, 8) if spare / d >= _REDUCED_MARGIN), default=1)
