"""Reads the head of a JPEG, which ends with the header of its first scan; `jpeg_scans` checks the rest."""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from streamer.imaging.jpeg_scans import JpegFrame, Scan, Scans, check_visits, read_scans
from streamer.imaging.pixel_limits import (
    ImageHeader,
    PixelLimits,
    damaged,
    read_orientation,
    turn_bytes,
    unsupported,
)
from streamer.protocol.wire import Codec

#: Most segments before the first scan. ICC profiles take at most 255, extended XMP takes some hundreds.
_MAX_SEGMENTS = 1024
#: Most bytes that lie between segments, all gaps together; libjpeg would skip them.
_MAX_STRAY_BYTES = 4096
#: Memory that libjpeg needs besides pixels and coefficients: rows, tables, its own structures.
_FIXED_BYTES = 2 << 20
_MARKER = re.compile(rb"\xff[^\xff\x00]")
_SOS, _EOI = b"\xff\xda", b"\xff\xd9"
#: Number of bytes at the end of a file in which `_scans_of` looks for unexpected further scans.
_TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class JpegHead:
    """Holds the part of a file before the data of the first scan, and what was parsed from it."""

    data: bytes
    #: The header of the image if the file is complete.
    header: ImageHeader
    frame: JpegFrame
    first_scan: Scan
    #: Whether the first scan must be the only one: it has all components, and the image is not progressive.
    single_scan: bool
    least_bytes: int
    #: The limits against which the head was checked.
    limits: PixelLimits


#: Cache of recently parsed heads, newest first. Frames of a camera begin with the same head, and parsing it
#: took a seventh of the time for which a streamed frame holds the GIL. The tuple is replaced as a whole, so
#: threads may read it at any time; if two threads replace it at once, an entry is lost. An entry depends only
#: on the bytes of its head and on the limits; the data after a head are checked each time.
_known_heads: tuple[JpegHead, ...] = ()
MAX_KNOWN_HEADS = 8
_MAX_KNOWN_HEAD_BYTES = 4096


def read_jpeg(blob: bytes, limits: PixelLimits) -> ImageHeader:
    """Return the header of a JPEG. Raises ImageError; struct.error or IndexError if its head is cut off."""
    head = _head_of(blob, limits)
    header = head.header
    following = _scans_of(blob, head)
    size = following.ends[-1] - len(head.data)
    if size < head.least_bytes:
        raise damaged(f"{size} bytes cannot hold {header.width}x{header.height} pixels")
    return header if following.ended else dataclasses.replace(header, sound_bytes=following.ends[-1])


def _scans_of(blob: bytes, head: JpegHead) -> Scans:
    """Return the scans that follow a head. Raises ImageError.

    If the first scan contains the whole image, libjpeg decodes it while reading and treats a second scan as
    an error, so the cost is already bounded. Most camera frames have a single scan. For them this function
    looks only for the end marker, which takes 0.004 ms; following all markers through 80 KB takes 0.05 ms.
    If it finds a scan near the end of the file, it follows all markers, so that a file with thousands of
    further scans is refused.
    """
    start = len(head.data)
    if head.single_scan:
        end = blob.rfind(_EOI, start)
        if end >= 0 and blob.find(_SOS, max(start, len(blob) - _TAIL_BYTES)) < 0:
            return Scans((head.first_scan,), (end,), ended=True)
    return follow_scans(blob, head)


def follow_scans(blob: bytes, head: JpegHead) -> Scans:
    """Return the scans that follow a head, by following all markers. Raises ImageError."""
    return read_scans(blob, len(head.data), head.frame, head.first_scan, head.limits)


def _header_of(frame: JpegFrame, orientation: int, reduction: int, *, single_scan: bool) -> ImageHeader:
    """Return the header of a complete file."""
    # OpenCV decodes unusual sampling and copies its pixels: 2 * 3 bytes. CMYK pixels (4 bytes) are in memory
    # together with the BGR pixels (3 bytes).
    each = 6 if not frame.usual_sampling else 7 if len(frame.components) == 4 else 3
    each += 3 if frame.arithmetic else 0  # it is decoded a second time, to detect whether it is cut off
    beside = _FIXED_BYTES + (0 if single_scan else frame.coefficient_bytes)
    decoding = each * frame.width * frame.height
    turning = turn_bytes(frame.width, frame.height) if orientation != 1 else 0
    splits = frame.usual_sampling and not frame.arithmetic
    return ImageHeader(
        Codec.JPEG,
        frame.width,
        frame.height,
        orientation,
        arithmetic=frame.arithmetic,
        decode_bytes=max(decoding + beside, turning + _FIXED_BYTES),
        kind=_kind_of(frame, single_scan=single_scan),
        beside_bytes=beside if splits else 0,
        pixel_bytes=each if splits else 0,
        reducible=splits,
        reduction=reduction,
    )


def _kind_of(frame: JpegFrame, *, single_scan: bool) -> str:
    """Return the name of a JPEG in error messages, which states what makes it take more memory to decode."""
    if frame.arithmetic:
        return "arithmetic-coded JPEG"
    if frame.progressive:
        return "progressive JPEG"
    if not single_scan:
        return "JPEG of several scans"
    if len(frame.components) == 4:
        return "CMYK JPEG"
    return "JPEG" if frame.usual_sampling else "JPEG of unusual sampling"


def _head_of(blob: bytes, limits: PixelLimits) -> JpegHead:
    """Return the head of a JPEG. Raises ImageError if it is damaged, too large or unsupported."""
    global _known_heads
    for head in _known_heads:
        if blob.startswith(head.data) and head.limits is limits:
            return head
    head = read_head(blob, limits)
    if len(head.data) <= _MAX_KNOWN_HEAD_BYTES:
        _known_heads = (head, *_known_heads[: MAX_KNOWN_HEADS - 1])
    return head


def read_head(blob: bytes, limits: PixelLimits) -> JpegHead:
    """Parse a head without the cache. Raises ImageError, struct.error or IndexError."""
    orientation = 0
    frame: JpegFrame | None = None
    segment, start = b"", 0
    for marker, segment, start in _segments(blob):  # noqa: B007 - the last one is the header of the first scan
        if marker == 0xE1 and not orientation and segment.startswith(b"Exif\x00\x00"):
            orientation = read_orientation(segment)
        elif marker == 0xF7:
            raise unsupported("JPEG-LS")
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if frame is not None:
                raise damaged("it has two frame headers")
            frame = JpegFrame.parse(marker, segment)
            frame.check(limits)
    if frame is None:
        raise damaged("it has no frame header")
    first_scan = Scan.parse(segment, frame)
    check_visits([first_scan], frame, limits)
    single_scan = not frame.progressive and len(first_scan.components) == len(frame.components)
    header = _header_of(frame, orientation or 1, frame.reduction(limits), single_scan=single_scan)
    return JpegHead(blob[:start], header, frame, first_scan, single_scan, frame.least_bytes(), limits)


def _segments(blob: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield marker, payload and end position of each segment, up to the header of the first scan."""
    position, stray = 2, _MAX_STRAY_BYTES
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(blob, position, position + stray + 2)
        if found is None:
            raise damaged("the file ends within its header")
        stray -= found.start() - position
        marker, position = blob[found.start() + 1], found.end()
        if marker == 0xD9:
            raise damaged("it ends before its image data begin")
        if marker in (0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
            continue
        (length,) = struct.unpack_from(">H", blob, position)
        segment = blob[position + 2 : position + length]
        if length < 2 or len(segment) != length - 2:
            raise damaged("the file ends within its header")
        position += length
        yield marker, segment, position
        if marker == 0xDA:
            return
    raise damaged(f"its header has more than {_MAX_SEGMENTS} segments")
