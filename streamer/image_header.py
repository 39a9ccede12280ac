"""Reads what an image claims to be before any decoder sees it: JPEG, PNG and WebP headers, nothing else.

Decoders allocate what a header claims, so limits hold here; media decodes what passed.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from streamer.exif import read_orientation
from streamer.image_kind import name_kind
from streamer.protocol import Codec

ALLOWED = "JPEG, PNG and WebP"

#: Segments before the first scan: ICC profiles take 255 at most, extended XMP some hundreds.
_MAX_JPEG_SEGMENTS = 1024
#: Bytes between segments that libjpeg would skip.
_MAX_JPEG_STRAY_BYTES = 4096
#: Progressive scans; encoders write about ten. Each one walks the whole picture again.
_MAX_JPEG_SCANS = 64
#: A PNG at the byte limit has a thousand chunks of data; more would keep the event loop busy.
_MAX_PNG_CHUNKS = 65_536
#: Chunks besides those of data; libpng may write a line about each.
_MAX_PNG_EXTRAS = 256
_MAX_WEBP_CHUNKS = 4096
#: Deflate makes at most 1032 bytes of one (a 258-byte match from two bits).
_DEFLATE_MAX_RATIO = 1032

_JPEG_MARKER = re.compile(rb"\xff[^\xff\x00]")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SIGNATURES = (b"\xff\xd8\xff", _PNG_SIGNATURE, b"RIFF")
#: Colour type to (channels, allowed bit depths).
_PNG_COLOURS = {
    0: (1, (1, 2, 4, 8, 16)),
    2: (3, (8, 16)),
    3: (1, (1, 2, 4, 8)),
    4: (2, (8, 16)),
    6: (4, (8, 16)),
}


class ImageErrorCode(StrEnum):
    """Why an image is refused."""

    EMPTY = "empty"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too_large"
    DAMAGED = "damaged"


class ImageError(Exception):
    """An image cannot be taken; the text says what was found and what is allowed."""

    def __init__(self, code: ImageErrorCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class PixelLimits(Protocol):
    """What an image may claim at most."""

    @property
    def image_px(self) -> int:
        """Pixels in all."""

    @property
    def image_side_px(self) -> int:
        """Pixels of the longer side."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image says of itself. ``width`` and ``height`` are as stored, before EXIF orientation."""

    codec: Codec
    width: int
    height: int
    #: EXIF orientation, 1 (upright) to 8.
    orientation: int = 1
    #: Bits of one channel; decoding always gives 8.
    bit_depth: int = 8
    #: Stored channels (a palette is one); decoding always gives BGR.
    channels: int = 3
    #: More than one picture; only the first is decoded.
    animated: bool = False
    progressive: bool = False

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height in pixels once the orientation is applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def read_header(data: bytes | memoryview, limits: PixelLimits) -> ImageHeader:
    """Return what ``data`` claims to be; decodes nothing.

    Raises ImageError: empty, unsupported (naming what it is), too_large, or damaged (cut off, or too short
    for the pixels it claims).
    """
    blob = data if isinstance(data, bytes) else bytes(data)
    if not blob:
        raise ImageError(ImageErrorCode.EMPTY, "the image is empty (0 bytes); send a JPEG, PNG or WebP file")
    try:
        if blob.startswith(b"\xff\xd8\xff"):
            return _read_jpeg(blob, limits)
        if blob.startswith(_PNG_SIGNATURE):
            return _read_png(blob, limits)
        if blob.startswith(b"RIFF") and blob[8:12] == b"WEBP":
            return _read_webp(blob, limits)
    except (struct.error, IndexError):
        raise _damaged("the file ends within its header") from None
    if any(whole.startswith(blob[: len(whole)]) and len(blob) < 12 for whole in _SIGNATURES):
        raise _damaged(f"the file ends after {len(blob)} bytes")
    raise _unsupported(name_kind(blob))


def _damaged(what: str) -> ImageError:
    return ImageError(ImageErrorCode.DAMAGED, f"the image is damaged: {what}")


def _unsupported(what: str) -> ImageError:
    return ImageError(ImageErrorCode.UNSUPPORTED, f"found {what}; allowed are {ALLOWED}")


def _check_size(width: int, height: int, limits: PixelLimits) -> None:
    if width < 1 or height < 1:
        raise _damaged(f"its header says {width}x{height} pixels")
    if max(width, height) > limits.image_side_px or width * height > limits.image_px:
        raise ImageError(
            ImageErrorCode.TOO_LARGE,
            f"the image is {width}x{height} pixels ({width * height / 1e6:.1f} megapixels); allowed are "
            f"{limits.image_side_px} pixels a side and {limits.image_px / 1e6:.1f} megapixels",
        )


# -- JPEG --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _JpegFrame:
    """A start-of-frame segment."""

    marker: int
    precision: int
    width: int
    height: int
    #: Horizontal and vertical sampling factor of each component.
    sampling: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, marker: int, segment: bytes) -> _JpegFrame:
        precision, height, width, count = struct.unpack_from(">BHHB", segment)
        if len(segment) < 6 + 3 * count:
            raise _damaged("its frame header is too short")
        factors = (segment[7 + 3 * index] for index in range(count))
        return cls(marker, precision, width, height, tuple((byte >> 4, byte & 15) for byte in factors))

    @property
    def progressive(self) -> bool:
        return self.marker in (0xC2, 0xCA)

    def check(self, limits: PixelLimits) -> None:
        """Raise ImageError for a frame that is too large, or of a kind that nobody uses any more."""
        if self.marker not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
            raise _unsupported("a lossless or hierarchical JPEG")
        _check_size(self.width, self.height, limits)
        if self.precision != 8:
            raise _unsupported(f"a JPEG with {self.precision} bits per channel")
        if len(self.sampling) not in (1, 3, 4):
            raise _unsupported(f"a JPEG with {len(self.sampling)} channels")
        if not all(1 <= x <= 4 and 1 <= y <= 4 for x, y in self.sampling):
            raise _damaged("its sampling factors are out of range")

    def least_bytes(self) -> int:
        """Lower bound of the scan data: Huffman codes have at least one bit.

        Two codes a block (DC, end of block) when sequential, one when progressive; arithmetic coding has no
        such bound.
        """
        if self.marker in (0xC9, 0xCA):
            return 0
        most_x = max(x for x, _ in self.sampling)
        most_y = max(y for _, y in self.sampling)
        blocks = sum(
            -(-self.width * x // (8 * most_x)) * -(-self.height * y // (8 * most_y)) for x, y in self.sampling
        )
        return blocks * (1 if self.progressive else 2) // 8


@dataclass(frozen=True, slots=True)
class _JpegHead:
    """All that comes before the first scan, and what it says."""

    data: bytes
    header: ImageHeader
    frame: _JpegFrame
    least_bytes: int
    #: Those that it was found to keep.
    limits: PixelLimits


#: Heads seen last, newest first: the frames of a camera begin alike, and walking through heads was a seventh
#: of the time for which a streamed frame holds the interpreter. Replaced as a whole, so threads may read it
#: at any time; two that replace it at once lose an entry.
_known_heads: tuple[_JpegHead, ...] = ()
_MAX_KNOWN_HEADS = 8
_MAX_KNOWN_HEAD_BYTES = 4096


def _head_of(blob: bytes, limits: PixelLimits) -> _JpegHead:
    """Return the head of a JPEG. Raises ImageError where it is damaged, too large or unsupported."""
    global _known_heads
    for head in _known_heads:
        if blob.startswith(head.data):
            if head.limits is not limits:
                head.frame.check(limits)
            return head
    head = _read_head(blob, limits)
    if len(head.data) <= _MAX_KNOWN_HEAD_BYTES:
        _known_heads = (head, *_known_heads[: _MAX_KNOWN_HEADS - 1])
    return head


def _read_head(blob: bytes, limits: PixelLimits) -> _JpegHead:
    orientation = 0
    frame: _JpegFrame | None = None
    start = 0
    for marker, segment, start in _jpeg_segments(blob):  # noqa: B007 - the last position is where the scans begin
        if marker == 0xE1 and not orientation and segment.startswith(b"Exif\x00\x00"):
            orientation = read_orientation(segment)
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if frame is not None:
                raise _damaged("it has two frame headers")
            frame = _JpegFrame.parse(marker, segment)
            frame.check(limits)
    if frame is None:
        raise _damaged("it has no frame header")
    header = ImageHeader(
        Codec.JPEG,
        frame.width,
        frame.height,
        orientation or 1,
        frame.precision,
        len(frame.sampling),
        progressive=frame.progressive,
    )
    return _JpegHead(blob[:start], header, frame, frame.least_bytes(), limits)


def _read_jpeg(blob: bytes, limits: PixelLimits) -> ImageHeader:
    head = _head_of(blob, limits)
    _check_scans(blob, head)
    return head.header


def _jpeg_segments(blob: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield marker, payload and end position of each segment, up to the header of the first scan."""
    position = 2
    for _ in range(_MAX_JPEG_SEGMENTS):
        found = _JPEG_MARKER.search(blob, position, position + _MAX_JPEG_STRAY_BYTES)
        if found is None:
            raise _damaged("the file ends within its header")
        marker, position = blob[found.start() + 1], found.end()
        if marker == 0xD9:
            raise _damaged("it ends before the picture begins")
        if marker in (0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
            continue
        (length,) = struct.unpack_from(">H", blob, position)
        segment = blob[position + 2 : position + length]
        if length < 2 or len(segment) != length - 2:
            raise _damaged("the file ends within its header")
        position += length
        yield marker, segment, position
        if marker == 0xDA:
            return
    raise _damaged(f"its header has more than {_MAX_JPEG_SEGMENTS} segments")


def _check_scans(blob: bytes, head: _JpegHead) -> None:
    """Check that the picture ends, holds what it must, and is not drawn over again without end.

    Within scan data 0xFF is always followed by 0 or a restart marker, so markers are found by search. A
    thumbnail's end lies in the head; bytes behind the end are nobody's business.
    """
    start = len(head.data)
    end = blob.rfind(b"\xff\xd9", start)
    if end < 0:
        raise _damaged("the file is cut off (no end marker)")
    frame = head.frame
    if end - start < head.least_bytes:
        raise _damaged(f"{end - start} bytes cannot hold {frame.width}x{frame.height} pixels")
    if frame.progressive and blob.count(b"\xff\xda", start, end) >= _MAX_JPEG_SCANS:
        raise _unsupported(f"a progressive JPEG with more than {_MAX_JPEG_SCANS} scans")


# -- PNG ---------------------------------------------------------------------------------------------


def _read_png(blob: bytes, limits: PixelLimits) -> ImageHeader:
    length, kind, width, height, depth, colour, _, _, interlace = struct.unpack_from(">I4sIIBBBBB", blob, 8)
    if kind != b"IHDR" or length != 13:
        raise _damaged("it does not begin with its header chunk")
    _check_size(width, height, limits)
    channels, depths = _PNG_COLOURS.get(colour, (0, ()))
    if depth not in depths or interlace > 1:
        raise _damaged(f"its header says colour type {colour} with {depth} bits")
    orientation, animated, data_bytes = _walk_png(blob)
    least_bytes = height * -(-width * channels * depth // 8) // _DEFLATE_MAX_RATIO
    if data_bytes < least_bytes:
        raise _damaged(f"{data_bytes} bytes cannot hold {width}x{height} pixels")
    return ImageHeader(Codec.PNG, width, height, orientation, depth, channels, animated)


def _walk_png(blob: bytes) -> tuple[int, bool, int]:
    """Follow the chunks to the end; returns orientation, whether animated, and bytes of picture data."""
    position, orientation, animated, data_bytes, extras = 33, 1, False, 0, 0
    for _ in range(_MAX_PNG_CHUNKS):
        if position + 12 > len(blob):
            raise _damaged("the file is cut off (no end chunk)")
        length, kind = struct.unpack_from(">I4s", blob, position)
        end = position + 12 + length
        if end > len(blob):
            raise _damaged("the file is cut off within a chunk")
        if kind == b"IDAT":
            data_bytes += length
        elif kind == b"eXIf":
            orientation = read_orientation(blob[position + 8 : end - 4])
        elif kind == b"acTL":
            animated = True
        elif kind == b"IEND":
            return orientation, animated, data_bytes
        extras += kind != b"IDAT"
        if extras > _MAX_PNG_EXTRAS:
            raise _damaged(f"it has more than {_MAX_PNG_EXTRAS} chunks besides those of its picture")
        position = end
    raise _damaged(f"it has more than {_MAX_PNG_CHUNKS} chunks")


# -- WebP --------------------------------------------------------------------------------------------


def _read_webp(blob: bytes, limits: PixelLimits) -> ImageHeader:
    (riff_bytes,) = struct.unpack_from("<I", blob, 4)
    end = 8 + riff_bytes
    kind = blob[12:16]
    animated, alpha = False, False
    if kind == b"VP8X":
        if len(blob) < 30:
            raise _damaged("the file ends within its header")
        flags = blob[20]
        size = (1 + int.from_bytes(blob[24:27], "little"), 1 + int.from_bytes(blob[27:30], "little"))
        animated, alpha = bool(flags & 2), bool(flags & 16)
    else:
        size = _webp_picture_size(kind, blob, 20)
        alpha = kind == b"VP8L" and bool(blob[24] & 16)
    _check_size(*size, limits)
    if end > len(blob):
        raise _damaged(f"the file is cut off ({len(blob)} of {end} bytes)")
    orientation, picture = _walk_webp(blob, end)
    if not animated and picture != size:
        raise _damaged("its picture is missing or of another size than its header says")
    return ImageHeader(Codec.WEBP, *size, orientation, channels=4 if alpha else 3, animated=animated)


def _webp_picture_size(kind: bytes, blob: bytes, payload: int) -> tuple[int, int]:
    """Return the size in a ``VP8 `` or ``VP8L`` chunk whose payload begins at ``payload``."""
    if kind == b"VP8L":
        mark, bits = struct.unpack_from("<BI", blob, payload)
        if mark != 0x2F:
            raise _damaged("its lossless picture does not begin with its mark")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        tag, start, width, height = struct.unpack_from("<B2x3sHH", blob, payload)
        if tag & 1 or start != b"\x9d\x01\x2a":
            raise _damaged("its picture does not begin with a key frame")
        return width & 0x3FFF, height & 0x3FFF
    raise _damaged(f"its first chunk is {kind!r}")


def _walk_webp(blob: bytes, end: int) -> tuple[int, tuple[int, int] | None]:
    """Follow the chunks to ``end``; returns orientation and the size of the (first) still picture."""
    position, orientation = 12, 1
    picture: tuple[int, int] | None = None
    for _ in range(_MAX_WEBP_CHUNKS):
        if position + 8 > end:
            return orientation, picture
        kind, length = struct.unpack_from("<4sI", blob, position)
        payload = position + 8
        if payload + length > end:
            raise _damaged("the file is cut off within a chunk")
        if kind in (b"VP8 ", b"VP8L") and picture is None:
            picture = _webp_picture_size(kind, blob, payload)
        elif kind == b"EXIF":
            orientation = read_orientation(blob[payload : payload + length])
        position = payload + length + (length & 1)
    raise _damaged(f"it has more than {_MAX_WEBP_CHUNKS} chunks")
