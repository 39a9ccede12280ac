"""Reads the head of a JPEG, up to its first scan; `jpeg_scans` judges what follows."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from streamer.exif import read_orientation
from streamer.imaging.errors import damaged
from streamer.imaging.header import ImageHeader, PixelLimits, turn_bytes
from streamer.imaging.jpeg_frame import JpegFrame
from streamer.imaging.jpeg_scans import Scan, Scans, read_scans
from streamer.protocol import Codec

#: Segments before the first scan: ICC profiles take 255 at most, extended XMP some hundreds.
_MAX_SEGMENTS = 1024
#: Bytes between segments, in all, that libjpeg would skip.
_MAX_STRAY_BYTES = 4096
#: What libjpeg needs besides pixels and coefficients: rows, tables, its own structures.
_FIXED_BYTES = 2 << 20
_MARKER = re.compile(rb"\xff[^\xff\x00]")


@dataclass(frozen=True, slots=True)
class JpegHead:
    """All that comes before the data of the first scan, and what it says."""

    data: bytes
    orientation: int
    frame: JpegFrame
    first_scan: Scan
    least_bytes: int
    #: Those that it was found to keep.
    limits: PixelLimits


#: Heads seen last, newest first: the frames of a camera begin alike, and walking through heads was a seventh
#: of the time for which a streamed frame holds the interpreter. Replaced as a whole, so threads may read it
#: at any time; two that replace it at once lose an entry. An entry depends on the bytes of its head alone;
#: what follows a head is judged each time.
_known_heads: tuple[JpegHead, ...] = ()
MAX_KNOWN_HEADS = 8
_MAX_KNOWN_HEAD_BYTES = 4096


def read_jpeg(blob: bytes, limits: PixelLimits) -> ImageHeader:
    """Return what a JPEG claims. Raises ImageError; struct.error or IndexError where its head is cut off."""
    head = _head_of(blob, limits)
    frame = head.frame
    following = scans_of(blob, head)
    size = following.ends[-1] - len(head.data)
    if size < head.least_bytes:
        raise damaged(f"{size} bytes cannot hold {frame.width}x{frame.height} pixels")
    return ImageHeader(
        Codec.JPEG,
        frame.width,
        frame.height,
        head.orientation,
        frame.precision,
        len(frame.components),
        progressive=frame.progressive,
        sound_bytes=0 if following.ended else following.ends[-1],
        decode_bytes=_decode_bytes(head, following),
    )


def scans_of(blob: bytes, head: JpegHead) -> Scans:
    """Return the scans that follow a head. Raises ImageError."""
    return read_scans(blob, len(head.data), head.frame, head.first_scan, head.limits)


def _decode_bytes(head: JpegHead, following: Scans) -> int:
    """Return the most memory that decoding takes: pixels, and coefficients where there are several scans."""
    frame = head.frame
    # Unusual ones go through OpenCV, which copies its pixels; of CMYK both forms are in memory at one time.
    each = 6 if not frame.usual_sampling else 7 if len(frame.components) == 4 else 3
    decoding = each * frame.width * frame.height
    if (
        len(following.scans) > 1
        or frame.progressive
        or len(head.first_scan.components) < len(frame.components)
    ):
        decoding += frame.coefficient_bytes
    turning = turn_bytes(frame.width, frame.height) if head.orientation != 1 else 0
    return max(decoding, turning) + _FIXED_BYTES


def _head_of(blob: bytes, limits: PixelLimits) -> JpegHead:
    """Return the head of a JPEG. Raises ImageError where it is damaged, too large or unsupported."""
    global _known_heads
    for head in _known_heads:
        if blob.startswith(head.data) and head.limits is limits:
            return head
    head = read_head(blob, limits)
    if len(head.data) <= _MAX_KNOWN_HEAD_BYTES:
        _known_heads = (head, *_known_heads[: MAX_KNOWN_HEADS - 1])
    return head


def read_head(blob: bytes, limits: PixelLimits) -> JpegHead:
    """Read a head anew. Raises ImageError, struct.error or IndexError."""
    orientation = 0
    frame: JpegFrame | None = None
    segment, start = b"", 0
    for marker, segment, start in _segments(blob):  # noqa: B007 - the last one is the header of the first scan
        if marker == 0xE1 and not orientation and segment.startswith(b"Exif\x00\x00"):
            orientation = read_orientation(segment)
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if frame is not None:
                raise damaged("it has two frame headers")
            frame = JpegFrame.parse(marker, segment)
            frame.check(limits)
    if frame is None:
        raise damaged("it has no frame header")
    first_scan = Scan.parse(segment, frame)
    return JpegHead(blob[:start], orientation or 1, frame, first_scan, frame.least_bytes(), limits)


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
            raise damaged("it ends before the picture begins")
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
