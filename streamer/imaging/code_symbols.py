"""Reads the texts of printed codes from the pixels of their boxes, with zxing-cpp.

Only decoders of a service with `READ_CODES` import this module, because zxing-cpp is an extra.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import zxingcpp
from zxingcpp import Barcode, BarcodeFormat, ContentType

from streamer.imaging.code_text import MAX_TEXT_CHARS

#: The crop of a box is larger than the box by this share of its longer side, and by some pixels, because
#: symbols need a quiet zone. Of 44 boxes of the sample clip, 26 are read with it, and 21 without a margin.
_MARGIN = 0.1
_MARGIN_PX = 4
#: Crops with a longer side are reduced to it: reading takes 1 to 10 ms up to here, and 60 ms at twice the
#: size.
_MAX_SIDE_PX = 1200

Image = npt.NDArray[np.uint8]
#: Text and name of the symbology.
Symbol = tuple[str, str]


def read_symbols(image: Image, boxes: Sequence[Sequence[float]], until_s: float) -> list[Symbol | None]:
    """Return the text and the symbology of the code in each box; None where nothing was read.

    ``image`` is upright, uint8, BGR (height, width, 3) or grey (height, width). ``boxes`` start with x1, y1,
    x2, y2 in pixels of ``image``, the most important box first. Boxes whose turn comes after ``until_s``
    (monotonic seconds) are not read.
    """
    found: list[Symbol | None] = [None] * len(boxes)
    for index, box in enumerate(boxes):
        if time.monotonic() >= until_s:
            break
        found[index] = _read(image, box)
    return found


def warm_up() -> None:
    """Read an empty image and a code once, so that zxing-cpp has set itself up before the sandbox."""
    symbol = zxingcpp.create_barcode("warm-up", BarcodeFormat.QRCode)
    pixels = np.array(symbol.to_image(scale=4, add_quiet_zones=True), np.uint8)
    read_symbols(pixels, [[0, 0, *pixels.shape[::-1]]], float("inf"))


def _read(image: Image, box: Sequence[float]) -> Symbol | None:
    """Read the code in one box."""
    x1, y1, x2, y2 = box[:4]
    margin = _MARGIN * max(x2 - x1, y2 - y1) + _MARGIN_PX
    left, top = max(0, int(x1 - margin)), max(0, int(y1 - margin))
    crop = image[top : max(0, int(y2 + margin) + 1), left : max(0, int(x2 + margin) + 1)]
    if crop.size == 0:
        return None
    grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY) if crop.ndim == 3 else np.ascontiguousarray(crop)
    scale = min(1.0, _MAX_SIDE_PX / max(grey.shape))
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    # The crop may contain parts of neighbouring codes. The code of this box is the one nearest to its centre.
    centre = ((x1 + x2) / 2 - left) * scale, ((y1 + y2) / 2 - top) * scale
    half = (x2 - x1) / 2 * scale, (y2 - y1) / 2 * scale
    best: tuple[float, Symbol] | None = None
    for code in zxingcpp.read_barcodes(grey):
        x, y = _centre(code)
        off = max(abs(x - centre[0]) / max(half[0], 1), abs(y - centre[1]) / max(half[1], 1))
        # The text of a code with binary data would only be its hexadecimal digits.
        is_text = code.content_type is not ContentType.Binary and 0 < len(code.text) <= MAX_TEXT_CHARS
        if off <= 1 and is_text and (best is None or off < best[0]):
            best = off, (code.text, str(code.format))
    return None if best is None else best[1]


def _centre(code: Barcode) -> tuple[float, float]:
    """Return the mean of the corners of a code, in pixels."""
    place = code.position
    corners = (place.top_left, place.top_right, place.bottom_right, place.bottom_left)
    return sum(corner.x for corner in corners) / 4, sum(corner.y for corner in corners) / 4
