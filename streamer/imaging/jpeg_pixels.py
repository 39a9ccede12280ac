"""Decodes JPEGs, and judges the damaged ones: refused, or decoded as far as they go.

A JPEG has no checksums. Damage shows where the data of a scan end too early or too late, hold an impossible
code, or hold a marker that may not stand there; single wrong bytes may decode to wrong pixels without a sign.
"""

from __future__ import annotations

import contextlib

import numpy as np
import numpy.typing as npt
import simplejpeg

from streamer.imaging.errors import damaged
from streamer.imaging.header import AnySize, ImageHeader
from streamer.imaging.jpeg import JpegHead, follow_scans, read_head
from streamer.imaging.jpeg_scans import Coverage, Scans

Pixels = npt.NDArray[np.uint8]

_EOI = b"\xff\xd9"
#: What libjpeg draws where data are missing. Rows of the picture itself that look like this count as missing.
_MISSING = 128
#: A picture is refused when less than this share of its rows can be read.
_LEAST_SHARE = 0.75
#: This many equal bytes at the end of the data are padding, or a part of the file that was never written.
_PADDING_BYTES = 4
#: A damaged picture is decoded twice, unless its scans alone take half a second (see `jpeg_scans`).
_MAX_VISITS_TWICE = 400_000_000
_ROWS_PER_STEP = 64
#: What stands for missing arithmetic-coded data, beside the zeros that the decoder takes.
_OTHER_BYTES = bytes([0x55]) * 64


class UnknownSampling(Exception):
    """The sampling factors are sound but unusual, and libjpeg's simpler interface does not know them."""


def decode_jpeg(data: bytes | memoryview, header: ImageHeader) -> tuple[Pixels, bool]:
    """Return the stored pixels as uint8 BGR, and whether a part of them is missing or wrong.

    Raises ImageError (damaged) when less than three quarters of the picture can be read, and UnknownSampling.
    Where the data differ from ``header``, the pixels may have another shape, but never take more memory.
    """
    space = np.empty((header.height, header.width, 3), np.uint8)
    if header.sound_bytes:
        return _decode_rest(data, header, space, "it is cut off, or broken in its scans")
    try:
        pixels = _decode(data, space)
    except ValueError as error:
        if "subsampling" in str(error):
            raise UnknownSampling from error
        return _decode_rest(data, header, space, str(error))
    return pixels, header.arithmetic and _ends_early(bytes(data), pixels)


def _decode(data: bytes | memoryview, space: Pixels) -> Pixels:
    """Decode into ``space``. Raises ValueError for anything that libjpeg warns of."""
    pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace="BGR", buffer=space)
    return pixels


def _ends_early(blob: bytes, pixels: Pixels) -> bool:
    """Return whether an arithmetic-coded picture is cut off. Raises ImageError when too few rows can be read.

    Its decoder takes zeros for what is missing. With other bytes there, only the last block of a whole
    picture may change, because encoders leave out zeros at the end.
    """
    head = read_head(blob, AnySize())
    ends = follow_scans(blob, head).ends
    other = np.empty_like(pixels)
    with contextlib.suppress(ValueError):  # what is not needed stands between the picture and its end
        _decode(blob[: ends[-1]] + _OTHER_BYTES + _EOI, other)
    differ = (pixels != other).any(axis=2)
    parts = head.frame.components
    top = _last_block(len(pixels), 8 * max(part.down for part in parts))
    left = _last_block(pixels.shape[1], 8 * max(part.across for part in parts))
    if not differ[:top].any() and not differ[top:, :left].any():
        return False
    sound = int(np.flatnonzero(differ.any(axis=1))[0])
    if sound < _LEAST_SHARE * len(pixels):
        raise damaged(f"{100 * sound / len(pixels):.0f} % of its rows can be read")
    return True


def _last_block(size: int, block: int) -> int:
    """Return where the last block begins; a pixel earlier, as colours are smoothed over its edge."""
    return max(0, (size - 1) // block * block - 1)


def _decode_rest(
    data: bytes | memoryview, header: ImageHeader, space: Pixels, reason: str
) -> tuple[Pixels, bool]:
    blob = bytes(data)
    head = read_head(blob, AnySize())
    if (head.frame.width, head.frame.height) != (header.width, header.height):
        raise damaged(f"its header says {header.width}x{header.height} pixels, its data differs")
    scans = follow_scans(blob, head)
    # What the decoder does not draw must not show what was in this memory before.
    space.fill(_MISSING)
    if head.single_scan:
        return _decode_rows(blob, head, scans, space)
    return _decode_first_scans(blob, head, scans, space, reason)


def _decode_rows(blob: bytes, head: JpegHead, scans: Scans, space: Pixels) -> tuple[Pixels, bool]:
    """Decode a picture of one scan as far as it goes; what is missing is missing at its lower edge."""
    body = blob[len(head.data) : scans.ends[0]]
    stripped = body.rstrip(body[-1:])
    if len(body) - len(stripped) >= _PADDING_BYTES:
        body = stripped
    try:
        # Without a warning, every block of the picture has come.
        return _decode(head.data + body + _EOI, space), not scans.ended
    except ValueError:
        pass  # the pixels are there as far as the data go
    if head.frame.arithmetic:
        raise damaged("its arithmetic-coded data are broken")
    check_rows(space)
    return space, True


def check_rows(pixels: Pixels) -> bool:
    """Return whether rows are missing at the lower edge. Raises ImageError when too few can be read."""
    share = _rows_before(pixels, _MISSING) / len(pixels)
    if share < _LEAST_SHARE:
        raise damaged(f"{100 * share:.0f} % of its rows can be read")
    return share < 1


def _decode_first_scans(
    blob: bytes, head: JpegHead, scans: Scans, space: Pixels, reason: str
) -> tuple[Pixels, bool]:
    """Decode a picture of several scans without the broken one and those behind it.

    What is left must bring every coefficient, be it coarsely: later scans only refine. Which scan is broken
    is known if its data end early; if not, all scans that only refine are left out.
    """
    if not scans.ended:
        count = len(scans.scans) - 1
    elif sum(scan.visits(head.frame) for scan in scans.scans) <= _MAX_VISITS_TWICE:
        count = len(scans.scans)
    else:
        raise damaged(reason)
    coverage = Coverage(head.frame)
    for number, scan in enumerate(scans.scans[:count], 1):
        coverage.add(scan)
        if coverage.complete and scans.ended:
            count = number
            break
    if not coverage.complete or (count == len(scans.scans)):
        raise damaged(f"its scans are broken before they have brought the whole picture ({reason})")
    try:
        return _decode(blob[: scans.ends[count - 1]] + _EOI, space), True
    except ValueError as error:
        raise damaged(f"its first scans are broken ({error})") from error


def _rows_before(pixels: Pixels, value: int) -> int:
    """Return how many rows there are above those at the lower edge that hold nothing but ``value``."""
    end = len(pixels)
    while end:
        start = max(0, end - _ROWS_PER_STEP)
        other = np.flatnonzero((pixels[start:end] != value).any(axis=(1, 2)))
        if len(other):
            return start + int(other[-1]) + 1
        end = start
    return 0
