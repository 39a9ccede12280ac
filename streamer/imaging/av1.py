"""Checks the AV1 data of a still image, and builds what the decoder gets: the headers and one frame alone."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from streamer.imaging.bits import BadBits, BitReader
from streamer.imaging.coded_picture import CodedPicture
from streamer.imaging.pixel_limits import damaged

#: Types of the units (OBUs) of AV1.
_SEQUENCE, _FRAME_HEADER, _TILE_GROUP, _FRAME = 1, 3, 4, 6
#: Most units in the data of one picture.
_MAX_UNITS = 1024
#: How many bytes of the sequence header are read. With 32 operating points it has some 200.
_SEQUENCE_BYTES = 256
#: Memory that dav1d takes for each pixel besides the samples of its picture; 0.5 was measured.
_TABLE_BYTES_PER_PX = 1
#: Matrix coefficients of RGB.
_IDENTITY = 0


def read_av1(data: bytes) -> CodedPicture:
    """Return the only picture in ``data``. Raises ImageError."""
    kept, headers, frames, count = [], [], [], 0
    for kind, start, payload, end in _units(data):
        count += 1
        if kind == _SEQUENCE:
            headers.append(data[payload:end])
        elif kind in (_FRAME, _FRAME_HEADER):
            frames.append(kind)
        elif kind != _TILE_GROUP:
            continue
        kept.append(data[start:end])
    if len(set(headers)) != 1 or len(frames) != 1:
        raise damaged(f"its AV1 data hold {len(frames)} frames and {len(headers)} sequence headers, not one")
    try:
        sequence = _read_sequence(headers[0][:_SEQUENCE_BYTES])
    except BadBits as error:
        raise damaged(f"its AV1 sequence header {error}") from None
    return CodedPicture(
        decoder="libdav1d",
        width=sequence.width,
        height=sequence.height,
        coded=(sequence.width, sequence.height),
        parts=1,
        bits=sequence.bits,
        chroma=sequence.chroma,
        # Film grain is added to a copy of the picture.
        pictures=2 if sequence.film_grain else 1,
        table_bytes_per_px=_TABLE_BYTES_PER_PX,
        units=count,
        config=b"",
        data=b"".join(kept),
    )


def _units(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield type, start, start of the payload and end of each unit (AV1 section 5.3). Raises ImageError."""
    at = 0
    for _ in range(_MAX_UNITS):
        if at >= len(data):
            return
        head, start, at = data[at], at, at + 1 + (data[at] >> 2 & 1)
        size = len(data) - at
        if head & 2:
            size, at = _leb128(data, at)
        end = at + size
        if head & 0x81 or end > len(data) or at > len(data):
            raise damaged("its AV1 data are cut off, or do not begin with a header")
        yield head >> 3 & 15, start, at, end
        at = end
    raise damaged(f"its AV1 data have more than {_MAX_UNITS} units")


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at ``at`` and where it ends (AV1 section 4.10.5). Raises ImageError."""
    value = 0
    for index, byte in enumerate(data[at : at + 8]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, at + index + 1
    raise damaged("its AV1 data are cut off within a length")


@dataclass(frozen=True, slots=True)
class _Sequence:
    """Holds what a sequence header says."""

    width: int
    height: int
    bits: int
    #: As in `CodedPicture`.
    chroma: int
    film_grain: bool

    @classmethod
    def read(cls, bits: BitReader) -> _Sequence:
        """Read the header (AV1 section 5.5). Raises BadBits."""
        profile, _, reduced = bits.take(3), bits.take(1), bits.take(1)
        if reduced:
            bits.skip(5)
        else:
            _skip_operating_points(bits)
        width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
        width, height = bits.take(width_bits) + 1, bits.take(height_bits) + 1
        if not reduced and bits.take(1):  # frames have numbers
            bits.skip(4 + 3)
        bits.skip(3)  # large superblocks and two intra tools
        if not reduced:
            _skip_tools(bits)
        bits.skip(3)  # super-resolution and filters
        depth, chroma = _read_colours(bits, profile)
        return cls(width, height, depth, chroma, bool(bits.take(1)))


@functools.lru_cache(maxsize=4)  # all tiles of an image have the same
def _read_sequence(header: bytes) -> _Sequence:
    return _Sequence.read(BitReader(header))


def _skip_operating_points(bits: BitReader) -> None:
    delay_bits = 0
    if bits.take(1):  # timing
        bits.skip(64)
        if bits.take(1):
            bits.unsigned()
        if bits.take(1):  # the model of a decoder's buffers
            delay_bits = bits.take(5) + 1
            bits.skip(32 + 5 + 5)
    delays = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.skip(12)
        if bits.take(5) > 7:
            bits.skip(1)
        if delay_bits and bits.take(1):
            bits.skip(2 * delay_bits + 1)
        if delays and bits.take(1):
            bits.skip(4)


def _skip_tools(bits: BitReader) -> None:
    bits.skip(4)  # tools between frames
    order_hints = bits.take(1)
    if order_hints:
        bits.skip(2)
    screen_content = 1 if bits.take(1) else bits.take(1)
    if screen_content and not bits.take(1):
        bits.skip(1)
    if order_hints:
        bits.skip(3)


def _read_colours(bits: BitReader, profile: int) -> tuple[int, int]:
    """Return bit depth and chroma format (AV1 section 5.5.2)."""
    depth = 10 if bits.take(1) else 8
    if profile == 2 and depth == 10 and bits.take(1):
        depth = 12
    if profile != 1 and bits.take(1):  # grey
        if bits.take(1):
            bits.skip(24)
        bits.skip(1)
        return depth, 0
    primaries, transfer, matrix = (bits.take(8), bits.take(8), bits.take(8)) if bits.take(1) else (2, 2, 2)
    if (primaries, transfer, matrix) == (1, 13, _IDENTITY):  # sRGB
        bits.skip(1)
        return depth, 3
    bits.skip(1)
    chroma = _chroma_of(bits, profile, depth)
    if chroma == 1:
        bits.skip(2)
    bits.skip(1)
    return depth, chroma


def _chroma_of(bits: BitReader, profile: int, depth: int) -> int:
    if profile < 2:
        return 3 if profile else 1
    if depth < 12:
        return 2
    if not bits.take(1):
        return 3
    return 1 if bits.take(1) else 2
