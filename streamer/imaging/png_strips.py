"""Decodes a large PNG in strips of rows, so that only the needed rows stay in memory.

The decoder gets each strip as a separate PNG. It begins with the last row of the previous strip, because PNG
filters refer to the row above. The result is the same as when the whole file is decoded.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from streamer.imaging.pixel_limits import damaged
from streamer.imaging.png import IEND, SIGNATURE, SURPLUS_BYTES, PngFile, ends_early
from streamer.imaging.sampled_pixels import Rows

Pixels = npt.NDArray[np.uint8]

#: Bytes of scanlines in one strip; about five copies of a strip are in memory while it is decoded.
_STRIP_BYTES = 256 << 10
#: Colour type and bit depth with which a strip is decoded, by the bytes of a pixel. Only the number of bytes
#: affects the filters, so the filters of any other colour type are undone correctly, too.
_SAME_FILTERS = {1: (0, 8), 2: (0, 16), 3: (2, 8), 4: (6, 8), 6: (2, 16), 8: (6, 16)}
_GREY, _RGB, _RGBA = (0, 8), (2, 8), (6, 8)


def decode_strips(data: bytes | memoryview, pixels: Pixels, rows: Rows) -> None:
    """Decode ``rows`` (ascending) of a non-interlaced image into ``pixels``, uint8 BGR.

    ``data`` must have passed `read_png`. Raises ImageError (damaged).
    """
    file = PngFile.read(data)
    if pixels.shape != (file.frame.height, file.frame.width, 3):
        raise damaged("its data differ from its header")
    strips = _Strips(file, pixels, rows)
    surplus = inflated = 0
    for piece in file.inflate():
        inflated += len(piece)
        if not strips.complete:
            piece = strips.add(piece)
        surplus += len(piece)
        if surplus > SURPLUS_BYTES:
            raise damaged(f"its data inflate to more than the {file.frame.scanline_bytes} bytes of its image")
    if not strips.complete:
        raise ends_early(file.frame, inflated)


class _Strips:
    """Collects scanlines, and decodes them when there are enough for a strip."""

    def __init__(self, file: PngFile, pixels: Pixels, rows: Rows) -> None:
        self._convert = _Converter.of(file)
        self._pixels = pixels
        self._rows = rows
        self._height = file.frame.height
        self._row_bytes = -(-file.frame.width * file.frame.channels * file.frame.depth // 8)
        self._pixel_bytes = max(1, file.frame.channels * file.frame.depth // 8)
        self._strip_rows = max(1, _STRIP_BYTES // (1 + self._row_bytes))
        #: Scanlines of the next strip, and the number of rows decoded before them.
        self._lines = bytearray()
        self._done = 0
        #: Bytes of the last decoded row, after its filter was undone; empty before the first strip.
        self._above = b""

    @property
    def complete(self) -> bool:
        """Whether all rows are decoded."""
        return self._done == self._height

    def add(self, piece: bytes) -> bytes:
        """Add inflated bytes; return those that follow the last row of the image."""
        self._lines += piece
        while not self.complete:
            count = min(self._strip_rows, self._height - self._done)
            size = count * (1 + self._row_bytes)
            if len(self._lines) < size:
                return b""
            self._decode(bytes(self._lines[:size]), count)
            del self._lines[:size]
        return bytes(self._lines)

    def _decode(self, lines: bytes, count: int) -> None:
        """Decode a strip of ``count`` rows."""
        if self._above:
            lines = b"\x00" + self._above + lines
        colour = _SAME_FILTERS[self._pixel_bytes]
        width = self._row_bytes // self._pixel_bytes
        strip = _decode_png((width, len(lines) // (1 + self._row_bytes)), colour, b"", lines)[-count:]
        self._above = _file_bytes(strip[-1:])
        first, last = np.searchsorted(self._rows, (self._done, self._done + count))
        wanted = self._rows[first:last]
        if len(wanted):
            self._pixels[wanted] = self._convert(strip[wanted - self._done])
        self._done += count


@dataclass(frozen=True, slots=True)
class _Converter:
    """Converts decoded strips to BGR pixels."""

    size: int
    colour: tuple[int, int]
    palette: bytes
    simple: Callable[[Pixels], Pixels] | None

    @classmethod
    def of(cls, file: PngFile) -> _Converter:
        """Return the converter for an image."""
        frame = file.frame
        colour = (frame.colour, frame.depth)
        simple: dict[tuple[int, int], Callable[[Pixels], Pixels]] = {
            _GREY: lambda strip: np.repeat(strip[:, :, None], 3, axis=2),
            _RGB: lambda strip: strip,
            _RGBA: lambda strip: strip[:, :, :3],
        }
        return cls(frame.width, colour, file.palette, simple.get(colour))

    def __call__(self, strip: npt.NDArray[np.uint8 | np.uint16]) -> Pixels:
        """Return the rows of ``strip`` as BGR (rows, width, 3)."""
        if self.simple is not None:
            return self.simple(np.asarray(strip, np.uint8))
        content = np.frombuffer(_file_bytes(strip), np.uint8).reshape(len(strip), -1)
        lines = np.pad(content, ((0, 0), (1, 0)))  # a filter byte of 0 before each row: no filter
        return np.asarray(
            _decode_png(
                (self.size, len(strip)), self.colour, self.palette, lines.tobytes(), cv2.IMREAD_COLOR
            ),
            np.uint8,
        )


def _file_bytes(strip: npt.NDArray[np.uint8 | np.uint16]) -> bytes:
    """Return the bytes of decoded rows in the order of a file: RGB, and the upper byte of 16 bits first."""
    if strip.ndim == 3:
        strip = strip[:, :, [2, 1, 0, 3][: strip.shape[2]]]
    return strip.astype(strip.dtype.newbyteorder(">")).tobytes()


def _decode_png(
    size: tuple[int, int],
    colour: tuple[int, int],
    palette: bytes,
    lines: bytes,
    flags: int = cv2.IMREAD_UNCHANGED,
) -> npt.NDArray[np.uint8 | np.uint16]:
    """Decode scanlines as a PNG of this width and height, colour type and bit depth. Raises ImageError."""
    head = struct.pack(">IIBBBBB", *size, colour[1], colour[0], 0, 0, 0)
    # Level 0 stores the bytes without compressing them.
    parts = (SIGNATURE, _chunk(b"IHDR", head), palette, _chunk(b"IDAT", zlib.compress(lines, 0)), IEND)
    strip: npt.NDArray[np.uint8 | np.uint16] | None = cv2.imdecode(
        np.frombuffer(b"".join(parts), np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION
    )
    if strip is None or strip.shape[:2] != size[::-1]:
        raise damaged("it cannot be decoded")
    return strip


def _chunk(kind: bytes, payload: bytes) -> bytes:
    checksum = zlib.crc32(payload, zlib.crc32(kind))
    return b"".join((struct.pack(">I4s", len(payload), kind), payload, struct.pack(">I", checksum)))
