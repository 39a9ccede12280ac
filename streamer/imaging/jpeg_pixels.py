"""Decodes JPEGs, and decides whether a damaged one is refused or decoded as far as possible.

A JPEG has no checksums. Damage is detected if the data of a scan end too early or too late, or contain an
invalid code or an unexpected marker. A few wrong bytes may decode to wrong pixels without being detected.
"""

from __future__ import annotations

import contextlib

import numpy as np
import numpy.typing as npt
import simplejpeg

from streamer.imaging.jpeg import JpegHead, follow_scans, read_head
from streamer.imaging.jpeg_scans import Coverage, Scans
from streamer.imaging.pixel_limits import ImageHeader, NoPixelLimits, damaged

Pixels = npt.NDArray[np.uint8]

_EOI = b"\xff\xd9"
#: Value that libjpeg writes where data are missing. Rows that really have this value count as missing too.
_MISSING = 128
#: An image is refused if less than this share of its rows can be read.
_LEAST_SHARE = 0.75
#: If at least this many bytes at the end of the data are equal, they count as padding, or as a part of the
#: file that was never written.
_PADDING_BYTES = 4
#: A damaged image is decoded a second time only if its scans visit at most this many coefficients; more would
#: take over half a second (see `jpeg_scans`).
_MAX_VISITS_TWICE = 400_000_000
_ROWS_PER_STEP = 64
#: Bytes that `_ends_early` appends to arithmetic-coded data. The decoder uses zeros in place of missing data,
#: so the pixels change if data are missing.
_OTHER_BYTES = bytes([0x55]) * 64


class UnsupportedSampling(Exception):
    """The sampling factors are valid, but libjpeg-turbo's simpler interface does not support them."""


def decode_jpeg(
    data: bytes | memoryview,
    header: ImageHeader,
    size: tuple[int, int],
    space: Pixels | None = None,
    most_bytes: int | None = None,
) -> tuple[Pixels, bool]:
    """Return the stored pixels as uint8 BGR, and whether a part of them is missing or wrong.

    ``size`` is their width and height: those in ``header``, or both divided by 2, 4 or 8. An intact image is
    decoded into ``space`` (uint8, of this size) if it is given. Memory from `sampled_memory` does not keep
    all rows, so a damaged image is decoded into new memory, where all rows can be checked.

    Raises ImageError (damaged) if less than three quarters of the image can be read, or if checking this
    would take more than ``most_bytes`` of memory. Raises UnsupportedSampling. If the data differ from
    ``header``, the pixels may have another shape, but never take more memory.
    """
    reason = "it is cut off, or broken in its scans"
    try:
        if header.sound_bytes:
            found = _decode_without_end(data, header, _space_of(size) if space is None else space)
            if found is not None:
                return found
        else:
            pixels = _decode(data, _space_of(size) if space is None else space)
            return pixels, header.arithmetic and _ends_early(bytes(data), pixels)
    except ValueError as error:
        if "subsampling" in str(error):
            raise UnsupportedSampling from error
        if not header.sound_bytes:
            reason = str(error)
    del space
    if most_bytes is not None and header.beside_bytes + 3 * size[0] * size[1] > most_bytes:
        raise damaged(f"{reason}; it is too large to find out which part of it can be read")
    return _decode_rest(data, header, _space_of(size), reason)


def _space_of(size: tuple[int, int]) -> Pixels:
    return np.empty((size[1], size[0], 3), np.uint8)


def _decode(data: bytes | memoryview, space: Pixels) -> Pixels:
    """Decode into ``space``, at the scale that fits its size. Raises ValueError if libjpeg warns."""
    height, width, _ = space.shape
    pixels: Pixels = simplejpeg.decode_jpeg(
        data, colorspace="BGR", min_height=height, min_width=width, buffer=space
    )
    return pixels


def _decode_without_end(
    data: bytes | memoryview, header: ImageHeader, space: Pixels
) -> tuple[Pixels, bool] | None:
    """Decode an image without end marker, as some cameras write it, into ``space``.

    Returns None if the scans do not contain every bit of every coefficient. Raises ValueError if the data of
    the last scan end early, and ImageError.
    """
    blob = bytes(data)
    head = _head_like(blob, header)
    scans = follow_scans(blob, head)
    coverage = Coverage(head.frame)
    for scan in scans.scans:
        coverage.add(scan)
    if not coverage.exact:
        return None
    # libjpeg warns if it needs a bit beyond the end of the data. If it does not, they contain every block.
    body = blob[: scans.ends[-1]]
    try:
        pixels = _decode(body + _EOI, space)
    except ValueError:
        bare = _without_padding(body)
        if len(bare) == len(body) or _visits(head, scans) > _MAX_VISITS_TWICE:
            raise
        body = bare
        pixels = _decode(body + _EOI, space)
    return pixels, header.arithmetic and _ends_early(body + _EOI, pixels)


def _without_padding(body: bytes) -> bytes:
    """Remove equal bytes at the end of the data, if there are at least `_PADDING_BYTES` of them."""
    stripped = body.rstrip(body[-1:])
    return stripped if len(body) - len(stripped) >= _PADDING_BYTES else body


def _visits(head: JpegHead, scans: Scans) -> int:
    """Return the cost of decoding these scans (see `jpeg_scans`)."""
    return sum(scan.visits(head.frame) for scan in scans.scans)


def _head_like(blob: bytes, header: ImageHeader) -> JpegHead:
    """Return the head of a file. Raises ImageError if it states another size than ``header``."""
    head = read_head(blob, NoPixelLimits())
    if (head.frame.width, head.frame.height) != (header.width, header.height):
        raise damaged(f"its header says {header.width}x{header.height} pixels, its data differs")
    return head


def _ends_early(blob: bytes, pixels: Pixels) -> bool:
    """Return whether an arithmetic-coded image is cut off. Raises ImageError if too few rows can be read.

    The decoder reads zeros in place of missing data. This function therefore decodes the image again with
    other bytes appended, and compares the pixels. In a complete image, only the last block may differ,
    because encoders omit zeros at the end.
    """
    head = read_head(blob, NoPixelLimits())
    ends = follow_scans(blob, head).ends
    other = np.empty_like(pixels)
    with contextlib.suppress(ValueError):  # libjpeg warns if it did not need all appended bytes
        _decode(blob[: ends[-1]] + _OTHER_BYTES + _EOI, other)
    differ = (pixels != other).any(axis=2)
    parts = head.frame.components
    top = _last_block(len(pixels), 8 * max(part.down for part in parts))
    left = _last_block(pixels.shape[1], 8 * max(part.across for part in parts))
    if not differ[:top].any() and not differ[top:, :left].any():
        return False
    sound = int(np.flatnonzero(differ.any(axis=1))[0])
    if sound < _LEAST_SHARE * len(pixels):
        raise damaged(_rows_text(sound / len(pixels)))
    return True


def _last_block(size: int, block: int) -> int:
    """Return where the last block begins, minus one pixel, because colours are smoothed across its edge."""
    return max(0, (size - 1) // block * block - 1)


def _decode_rest(
    data: bytes | memoryview, header: ImageHeader, space: Pixels, reason: str
) -> tuple[Pixels, bool]:
    """Decode the readable part of a damaged image into ``space``. Raises ImageError."""
    blob = bytes(data)
    head = _head_like(blob, header)
    scans = follow_scans(blob, head)
    # Fill the memory, because pixels that the decoder does not write would show its earlier contents.
    space.fill(_MISSING)
    if head.single_scan:
        return _decode_rows(blob, head, scans, space)
    return _decode_first_scans(blob, head, scans, space, reason)


def _decode_rows(blob: bytes, head: JpegHead, scans: Scans, space: Pixels) -> tuple[Pixels, bool]:
    """Decode an image of one scan as far as possible; missing rows are at its lower edge."""
    body = _without_padding(blob[len(head.data) : scans.ends[0]])
    try:
        # If libjpeg does not warn, the data contain every block of the image.
        whole = head.data + body + _EOI
        pixels = _decode(whole, space)
        return pixels, head.frame.arithmetic and _ends_early(whole, pixels)
    except ValueError:
        pass  # `space` contains the pixels up to the end of the data
    if head.frame.arithmetic:
        raise damaged("its arithmetic-coded data are broken")
    if len(head.frame.components) == 4:  # after a warning of libjpeg, no row is converted from CMYK
        raise damaged("it is cut off or broken, and no part of a damaged CMYK image can be read")
    check_rows(space)
    return space, True


def check_rows(pixels: Pixels) -> bool:
    """Return whether rows are missing at the lower edge. Raises ImageError if too few can be read."""
    share = _rows_before(pixels, _MISSING) / len(pixels)
    if share < _LEAST_SHARE:
        raise damaged(_rows_text(share))
    return share < 1


def _rows_text(share: float) -> str:
    return f"{100 * share:.0f} % of its rows can be read, and {100 * _LEAST_SHARE:.0f} % are needed"


def _decode_first_scans(
    blob: bytes, head: JpegHead, scans: Scans, space: Pixels, reason: str
) -> tuple[Pixels, bool]:
    """Decode an image of several scans without the broken scan and those after it.

    The remaining scans must contain every coefficient, at least coarsely; later scans only refine them. If
    the data end early, the last scan is the broken one. Otherwise it is unknown which scan is broken, so this
    function leaves out all scans that only refine coefficients.
    """
    if _visits(head, scans) > _MAX_VISITS_TWICE:
        raise damaged(reason)
    count = len(scans.scans) if scans.ended else len(scans.scans) - 1
    coverage = Coverage(head.frame)
    for number, scan in enumerate(scans.scans[:count], 1):
        coverage.add(scan)
        if coverage.complete and scans.ended:
            count = number
            break
    if not coverage.complete:
        raise damaged(
            f"its scans are broken before they have delivered the whole image ({reason}): "
            f"{100 * coverage.missing_share:.0f} % of its coefficients are missing"
        )
    if count == len(scans.scans):
        raise damaged(f"its last scan is broken, which delivers a part of the image ({reason})")
    try:
        return _decode(blob[: scans.ends[count - 1]] + _EOI, space), True
    except ValueError as error:
        raise damaged(f"its first scans are broken ({error})") from error


def _rows_before(pixels: Pixels, value: int) -> int:
    """Return the number of rows above those at the lower edge that contain only ``value``."""
    end = len(pixels)
    while end:
        start = max(0, end - _ROWS_PER_STEP)
        other = np.flatnonzero((pixels[start:end] != value).any(axis=(1, 2)))
        if len(other):
            return start + int(other[-1]) + 1
        end = start
    return 0
