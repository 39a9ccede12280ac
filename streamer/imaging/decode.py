"""Turns encoded images into upright pixels; image_header has judged them before."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from streamer.imaging.errors import damaged
from streamer.imaging.header import ImageHeader
from streamer.imaging.jpeg_pixels import UnknownSampling, check_rows, decode_jpeg
from streamer.imaging.png import bare_png
from streamer.imaging.webp import WebpPicture, bare_webp
from streamer.protocol.wire import Codec

Image = npt.NDArray[np.uint8]

#: EXIF orientation as (mirrored left to right first, then clockwise quarter turns).
_ORIENTATIONS = {
    1: (False, 0),
    2: (True, 0),
    3: (False, 2),
    4: (True, 2),
    5: (True, 3),
    6: (False, 1),
    7: (True, 1),
    8: (False, 3),
}
_TURNS = {1: cv2.ROTATE_90_CLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_COUNTERCLOCKWISE}
_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
#: A reduced picture keeps at least this many pixels for each one of the model input, per side.
_REDUCED_MARGIN = 2.0


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture as it stands in memory."""

    #: Upright, uint8 BGR (height, width, 3).
    pixels: Image
    #: Whether a part is missing or wrong: what is missing is grey, or without its finest details.
    damaged: bool = False


def decode(
    data: bytes | memoryview,
    header: ImageHeader,
    *,
    rotation: int = 0,
    target: tuple[int, int] | None = None,
    reduce: bool = False,
) -> Decoded:
    """Return the picture upright; ``header`` is what `read_header` returned for the same ``data``.

    The EXIF orientation of ``header`` is applied (for PNG and WebP too, so that one rule holds for all),
    then ``rotation`` clockwise quarter turns. Grey, palette and CMYK become BGR, 16 bits become their upper
    8, alpha is left out without blending, and of an animation the first picture is taken. Decoders of PNG
    and WebP get a file without anything else: metadata, profiles and further pictures may cost any amount.

    With ``reduce``, a JPEG much larger than ``target`` (width and height of the model input) comes at 1/2,
    1/4 or 1/8 of its size. Off by default, because boxes move: full against reduced decode with YOLOX-nano
    and YOLOv9-t on three photographs and their enlargements gave IoU down to 0.92 and scores off by up to
    0.05 with a margin of 2, still 0.97 and 0.022 with a margin of 4.5 and more, while it saves a third of
    the decode time. Linear resizing samples other pixels of a reduced picture; no margin holds 0.98 and 0.02.

    A JPEG of which three quarters can be read is returned, and marked as damaged. Opens no files and starts
    no threads. Raises ImageError (damaged) when the data do not hold the picture that their header claims.
    """
    denominator = 1
    if reduce and target is not None and not header.sound_bytes:
        denominator = choose_reduction(header, rotation, target)
    try:
        image, is_damaged = _stored_pixels(data, header, denominator)
    except (struct.error, IndexError):
        raise damaged("its data differ from its header") from None
    expected = (-(-header.height // denominator), -(-header.width // denominator), 3)
    if image.shape != expected:
        raise damaged(f"its header says {header.width}x{header.height} pixels, its data differs")
    return Decoded(_turn_upright(image, header.orientation, rotation), is_damaged)


def _stored_pixels(data: bytes | memoryview, header: ImageHeader, denominator: int) -> tuple[Image, bool]:
    """Return the pixels as they are stored, and whether they are damaged. Raises ImageError."""
    if header.codec is Codec.JPEG:
        if denominator > 1:
            return _opencv(data, header, _FLAGS[denominator]), False
        try:
            return decode_jpeg(data, header)
        except UnknownSampling:
            # OpenCV does not tell what libjpeg warns of. A picture that is grey all over is a picture.
            image = _opencv(data, header)
            return image, bool((image[0] != image[-1]).any()) and check_rows(image)
    if header.codec is Codec.PNG:
        return _opencv(bare_png(bytes(data)), header), False
    bare, picture = bare_webp(bytes(data))
    return _on_canvas(_opencv(bare, header), picture, header), False


def _on_canvas(image: Image, picture: WebpPicture, header: ImageHeader) -> Image:
    """Return the first picture of an animation in its place; what it does not cover is black."""
    if image.shape[:2] == (header.height, header.width) or image.shape[:2] != (picture.height, picture.width):
        return image
    canvas = np.zeros((header.height, header.width, 3), np.uint8)
    right, bottom = picture.left + picture.width, picture.top + picture.height
    canvas[picture.top : bottom, picture.left : right] = image
    return canvas


def _opencv(data: bytes | memoryview, header: ImageHeader, flags: int = cv2.IMREAD_COLOR) -> Image:
    """Decode with OpenCV. Raises ImageError, or MemoryError."""
    try:
        # The orientation is applied later: OpenCV would do so before `rotation`, in a second pass.
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
    """Return the DCT scale denominator (1, 2, 4, 8) that still leaves enough pixels for ``target``.

    Only JPEG decoders can skip work this way.
    """
    if header.codec is not Codec.JPEG:
        return 1
    width, height = header.upright_size
    if rotation % 2:
        width, height = height, width
    # Letterboxing scales by the tighter side, stretching by each: the smaller ratio is safe for both.
    spare = min(width / target[0], height / target[1])
    return max((d for d in (2, 4, 8) if spare / d >= _REDUCED_MARGIN), default=1)


def _turn_upright(image: Image, orientation: int, rotation: int) -> Image:
    """Apply orientation and rotation together, in one pass over the pixels where there is one."""
    mirrored, turns = _ORIENTATIONS[orientation]
    turns = (turns + rotation) % 4
    if not mirrored and not turns:
        return image
    turned: Image
    if not mirrored:
        turned = cv2.rotate(image, _TURNS[turns])
    elif turns == 3:
        turned = cv2.transpose(image)
    elif turns == 1:
        turned = cv2.flip(cv2.transpose(image), -1)
    else:
        turned = cv2.flip(image, 0 if turns == 2 else 1)
    return turned
