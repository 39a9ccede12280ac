"""Checks the chunks of a PNG, and builds the file for the decoder, which contains only the image."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from streamer.imaging.pixel_limits import (
    ImageError,
    ImageHeader,
    PixelLimits,
    check_size,
    damaged,
    read_orientation,
    too_large,
    turn_bytes,
    unsupported,
)
from streamer.imaging.sampled_pixels import LEAST_BYTES
from streamer.protocol.wire import Codec

SIGNATURE = b"\x89PNG\r\n\x1a\n"
IEND = struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))
#: Most chunks of a file. Encoders write data chunks of at least 8 KiB, except for small images. Reading 4096
#: chunks takes 3 ms.
_MAX_CHUNKS = 4096
#: Most chunks that are not data chunks.
_MAX_EXTRAS = 256
#: One byte of deflate data inflates to at most 1032 bytes (a 258-byte match from two bits).
_DEFLATE_MAX_RATIO = 1032
#: Inflated bytes beyond the image that are tolerated; libpng discards this many in 0.2 s.
SURPLUS_BYTES = 64 << 20
#: Most bytes in a stored block of deflate.
_STEP_BYTES = 65_535
#: Scanlines up to this size are passed on uncompressed after they were inflated for the check. At 1080p,
#: decoding then takes 1.3 times as long as without the check, instead of 1.8 times.
_MAX_STORED_BYTES = 32 << 20
#: Most bytes of scanlines for each pixel that the limits allow. With the slowest filter in each line, 33.5
#: megapixels took 1.5 s at 6 bytes a pixel, and 2 s at 8 (four channels of 16 bits).
_MAX_SCANLINE_BYTES_PER_PIXEL = 6
#: Memory that is needed besides pixels: scanlines, zlib's window, strips.
_FIXED_BYTES = 3 << 20
#: Number of channels and allowed bit depths by colour type.
_COLOURS = {
    0: (1, (1, 2, 4, 8, 16)),
    2: (3, (8, 16)),
    3: (1, (1, 2, 4, 8)),
    4: (2, (8, 16)),
    6: (4, (8, 16)),
}
_PALETTE = 3
#: Column and row of the first pixel, and steps to the next ones, in each pass of an interlaced image.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@dataclass(frozen=True, slots=True)
class PngFrame:
    """Holds the contents of the header chunk."""

    width: int
    height: int
    depth: int
    colour: int
    channels: int
    interlaced: bool

    @classmethod
    def parse(cls, blob: bytes | memoryview) -> PngFrame:
        """Read and check the header chunk. Raises ImageError, or struct.error if the file ends within it."""
        header = struct.unpack_from(">I4sIIBBBBB", blob, 8)
        length, kind, width, height, depth, colour, compression, filtering, interlace = header
        if kind == b"CgBI":
            raise unsupported("a PNG in Apple's variant for apps (CgBI), which other programs cannot read")
        if kind != b"IHDR" or length != 13:
            raise damaged("it does not begin with its header chunk")
        channels, depths = _COLOURS.get(colour, (0, ()))
        if depth not in depths or interlace > 1 or compression or filtering:
            raise damaged(f"its header says colour type {colour} with {depth} bits")
        return cls(width, height, depth, colour, channels, bool(interlace))

    @property
    def scanline_bytes(self) -> int:
        """Bytes of the inflated image data: the scanlines of all passes with their filter bytes."""
        bits = self.channels * self.depth
        if not self.interlaced:
            return self.height * (1 + -(-self.width * bits // 8))
        sizes = ((-(-(self.width - x) // dx), -(-(self.height - y) // dy)) for x, y, dx, dy in _ADAM7)
        return sum(
            rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0 and rows > 0
        )


@dataclass(slots=True)
class _Chunks:
    """Holds the positions of the chunks found in a file."""

    #: Start and end of the palette chunk, including its length and checksum.
    palette: tuple[int, int] | None = None
    #: Start and end of each data chunk in the first run of data chunks; libpng reads no others.
    data: list[tuple[int, int]] = field(default_factory=list)
    #: Orientation in the first EXIF chunk; None if there is no such chunk.
    orientation: int | None = None
    #: Whether the file ends before its end chunk, perhaps within its last data chunk.
    cut: bool = False

    @property
    def data_bytes(self) -> int:
        """Bytes of the compressed image data."""
        return sum(end - start - 12 for start, end in self.data)

    def may_have_surplus(self, scanline_bytes: int) -> bool:
        """Return whether the data may inflate to more than `SURPLUS_BYTES` bytes beyond the image."""
        return self.data_bytes * _DEFLATE_MAX_RATIO > scanline_bytes + SURPLUS_BYTES

    def checked(self, frame: PngFrame, *, cut: bool = False) -> _Chunks:
        """Return this object. Raises ImageError if the data or a needed palette is missing."""
        self.cut = cut
        if not self.data:
            raise damaged("it has no image data")
        if frame.colour == _PALETTE and self.palette is None:
            raise damaged("its palette is missing")
        return self


def read_png(blob: bytes, limits: PixelLimits) -> ImageHeader:
    """Return the header of a PNG. Raises ImageError; struct.error if its header is cut off."""
    frame = PngFrame.parse(blob)
    width, height = frame.width, frame.height
    check_size(width, height, limits, "a PNG")
    most_bytes = _MAX_SCANLINE_BYTES_PER_PIXEL * limits.image_px
    if frame.scanline_bytes > most_bytes:
        raise too_large(
            f"the image is {width}x{height} pixels of {frame.channels} channels with {frame.depth} bits, "
            f"{frame.scanline_bytes / 1e6:.0f} MB in all; allowed are {most_bytes / 1e6:.0f} MB"
        )
    chunks = _walk(blob, frame)
    if chunks.data_bytes < frame.scanline_bytes // _DEFLATE_MAX_RATIO:
        raise damaged(f"{chunks.data_bytes} bytes cannot hold {width}x{height} pixels")
    orientation = chunks.orientation or 1
    turning = turn_bytes(width, height) if orientation != 1 else 0
    # Images with 16 bits per channel are not decoded in strips: the slowest filter would take too long.
    in_strips = 3 * width * height >= LEAST_BYTES and not frame.interlaced and frame.depth <= 8
    pixel_bytes = 3 if in_strips else 0
    decoding = pixel_bytes * width * height or _decode_bytes(frame, chunks, len(blob))
    return ImageHeader(
        Codec.PNG,
        width,
        height,
        orientation,
        decode_bytes=max(decoding, turning) + _FIXED_BYTES,
        kind="interlaced PNG" if frame.interlaced else "16-bit PNG" if frame.depth > 8 else "PNG",
        beside_bytes=_FIXED_BYTES if pixel_bytes else 0,
        pixel_bytes=pixel_bytes,
    )


def _decode_bytes(frame: PngFrame, chunks: _Chunks, file_bytes: int) -> int:
    """Return the peak memory of decoding: OpenCV's pixels, their copy for Python, and the bare file."""
    pixels, stored = 6 * frame.width * frame.height, frame.scanline_bytes
    if stored <= _MAX_STORED_BYTES and (chunks.cut or chunks.may_have_surplus(stored)):
        return max(2 * stored, stored + pixels) + file_bytes
    return pixels + 2 * file_bytes


@dataclass(frozen=True, slots=True)
class PngFile:
    """Gives access to a file whose image is decoded in strips (`png_strips`)."""

    frame: PngFrame
    #: The palette chunk; empty if there is none.
    palette: bytes
    _data: bytes | memoryview
    _chunks: _Chunks

    @classmethod
    def read(cls, data: bytes | memoryview) -> PngFile:
        """Read a file that has passed `read_png`, without copying it. Raises ImageError."""
        frame = PngFrame.parse(data)
        chunks = _walk(data, frame)
        palette = bytes(data[slice(*chunks.palette)]) if chunks.palette is not None else b""
        return cls(frame, palette, data, chunks)

    def inflate(self) -> Iterator[bytes]:
        """Yield the scanlines in pieces of up to 64 KiB, perhaps too few. Raises ImageError if broken."""
        return _inflate(self._data, self._chunks)


def bare_png(blob: bytes) -> bytes:
    """Return the file with only the header, the palette and the data. ``blob`` must have passed `read_png`.

    This function leaves out text, profiles and further frames, because they are compressed and could inflate
    to any size, and transparency, because decoding drops it anyway. Raises ImageError (damaged) if the data
    inflate to far more than the image (see `SURPLUS_BYTES`).
    """
    frame = PngFrame.parse(blob)
    chunks = _walk(blob, frame)
    palette = blob[slice(*chunks.palette)] if chunks.palette is not None else b""
    return b"".join((blob[:33], palette, *_checked_data(blob, chunks, frame), IEND))


def _walk(blob: bytes | memoryview, frame: PngFrame) -> _Chunks:
    """Find the chunks up to the end chunk, or up to the end of a file that is cut off in or behind its data.

    Whether the data are complete shows when they are inflated. Raises ImageError.
    """
    position, found, extras, previous, kind = 33, _Chunks(), 0, b"", b"IHDR"
    for _ in range(_MAX_CHUNKS):
        if position + 8 > len(blob):
            return found.checked(frame, cut=True)
        previous = kind
        length, kind = struct.unpack_from(">I4s", blob, position)
        start, position = position, position + 12 + length
        cut = position > len(blob)
        if cut and kind != b"IDAT" and not found.data:
            raise damaged(
                "the file is cut off within a chunk before its image data: it has "
                f"{len(blob)} of {position} bytes or more"
            )
        if kind == b"IDAT" and (previous == b"IDAT" or not found.data):
            # If the checksum is missing, the data may still be complete; it takes 4 bytes that are not read.
            found.data.append((start, min(position, len(blob) + 4)))
        if cut:
            return found.checked(frame, cut=True)
        if kind == b"IDAT":
            continue
        if kind == b"IEND":
            return found.checked(frame)
        extras += 1
        if extras > _MAX_EXTRAS:
            raise damaged(f"it has more than {_MAX_EXTRAS} chunks besides those of its image")
        _note_extra(found, kind, blob, start, position)
    raise damaged(f"it has more than {_MAX_CHUNKS} chunks")


def _note_extra(found: _Chunks, kind: bytes, blob: bytes | memoryview, position: int, end: int) -> None:
    """Record a chunk that is neither a data chunk nor the end chunk. Raises ImageError."""
    if kind == b"eXIf" and found.orientation is None:
        found.orientation = read_orientation(bytes(blob[position + 8 : end - 4]))
    elif kind == b"PLTE":
        if found.palette is None and not found.data:
            found.palette = (position, end)
    elif not kind[0] & 0x20:
        raise damaged(f"its chunk {kind!r} is critical, and none of PNG")


def ends_early(frame: PngFrame, inflated: int) -> ImageError:
    """Return the error for image data that inflate to ``inflated`` bytes, which are too few."""
    if frame.interlaced:
        there = f"{inflated} of {frame.scanline_bytes} bytes"
    else:
        there = f"{inflated * frame.height // frame.scanline_bytes} of {frame.height} rows"
    return damaged(f"its image data end early: they have {there}")


def _checked_data(blob: bytes, chunks: _Chunks, frame: PngFrame) -> list[bytes]:
    """Return the data chunks that the decoder gets. Raises ImageError.

    libpng inflates all data and discards the surplus. If the surplus could be too large, or the file is cut
    off, this function inflates the data first to measure them. Scanlines of at most `_MAX_STORED_BYTES` are
    then passed on uncompressed.
    """
    whole = slice(chunks.data[0][0], chunks.data[-1][1])
    scanline_bytes = frame.scanline_bytes
    if not chunks.cut and not chunks.may_have_surplus(scanline_bytes):
        return [blob[whole]]
    keep = scanline_bytes <= _MAX_STORED_BYTES
    blocks, inflated, adler = [b"\x78\x01"], 0, 1
    for piece in _inflate(blob, chunks):
        kept = piece[: max(0, scanline_bytes - inflated)]
        inflated += len(piece)
        if inflated > scanline_bytes + SURPLUS_BYTES:
            raise damaged(f"its data inflate to more than the {scanline_bytes} bytes of its image")
        if keep and kept:
            adler = zlib.adler32(kept, adler)
            blocks += (struct.pack("<BHH", 0, len(kept), len(kept) ^ 0xFFFF), kept)
    if inflated < scanline_bytes:
        raise ends_early(frame, inflated)
    if not keep:
        if len(blob) < whole.stop:  # the decoder needs the checksum, which would take a copy of all data
            raise damaged("the file is cut off at the end of its image data, and it is too large to mend")
        return [blob[whole]]
    blocks.append(struct.pack("<BHH", 1, 0, 0xFFFF) + struct.pack(">I", adler))
    length, checksum = 0, zlib.crc32(b"IDAT")
    for block in blocks:
        length, checksum = length + len(block), zlib.crc32(block, checksum)
    return [struct.pack(">I4s", length, b"IDAT"), *blocks, struct.pack(">I", checksum)]


def _inflate(blob: bytes | memoryview, chunks: _Chunks) -> Iterator[bytes]:
    """Inflate the data chunks, and yield the result in pieces. Raises ImageError if they are broken.

    Data of a file that is cut off may end early; the caller counts the bytes.
    """
    inflater = zlib.decompressobj()
    try:
        for start, end in chunks.data:
            # Pass the data in small steps, because the inflater copies the unconsumed rest of each step.
            for step in range(start + 8, end - 4, _STEP_BYTES):
                rest: bytes | memoryview = memoryview(blob)[step : min(step + _STEP_BYTES, end - 4)]
                while rest and not inflater.eof:
                    yield inflater.decompress(rest, _STEP_BYTES)
                    rest = inflater.unconsumed_tail
        while not inflater.eof and (piece := inflater.decompress(b"", _STEP_BYTES)):
            yield piece
    except zlib.error as error:
        raise damaged("its image data cannot be inflated") from error
    if not inflater.eof and not chunks.cut:
        raise damaged("its image data end early")
