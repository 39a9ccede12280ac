"""Checks the chunks of a WebP, and builds the file for the decoder, which contains a single image."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from streamer.imaging.pixel_limits import (
    ImageHeader,
    PixelLimits,
    check_size,
    damaged,
    read_orientation,
    turn_bytes,
)
from streamer.protocol.wire import Codec

_MAX_CHUNKS = 4096
_ANIMATION, _EXIF = 0x02, 0x08
#: Bit in the header of a lossless image that says whether it has transparent pixels.
_LOSSLESS_ALPHA = 0x10
#: Memory that the decoder needs besides pixels: rows, tables.
_FIXED_BYTES = 4 << 20
#: A lossless image may contain a set of Huffman codes for each tile of 4x4 pixels, but at most 65,536 sets. A
#: set takes at least 20 bits of the file, and up to 12 KB of memory. Only decoding shows how many sets a file
#: contains.
_TILE_PX, _MAX_CODE_SETS, _CODE_SET_BITS, _CODE_SET_BYTES = 16, 65_536, 20, 12_500


@dataclass(frozen=True, slots=True)
class WebpImage:
    """Describes the part of the file that is decoded: its only image, or the first frame of an animation."""

    kind: bytes
    #: Start and end of its payload.
    start: int
    end: int
    width: int
    height: int
    #: Position on the canvas of an animation.
    left: int = 0
    top: int = 0


@dataclass(slots=True)
class _File:
    """Holds the contents of a file; ``width`` and ``height`` are those of the canvas."""

    width: int
    height: int
    animated: bool = False
    #: Whether the header says that there is an EXIF chunk.
    has_exif: bool = False
    #: Orientation in the first EXIF chunk; None if there is no such chunk.
    orientation: int | None = None
    image: WebpImage | None = None


def read_webp(blob: bytes, limits: PixelLimits) -> ImageHeader:
    """Return the header of a WebP. Raises ImageError; struct.error or IndexError if its header is cut off."""
    found = _read(blob, limits)
    image = found.image
    if image is None:
        raise damaged("its image data are missing or of another size than its header says")
    px = image.width * image.height
    decoding = 6 * px  # OpenCV's own pixels, and the copy of its Python binding
    if image.kind == b"VP8L":
        size_bits = 8 * (image.end - image.start)
        code_sets = min(_MAX_CODE_SETS, -(-px // _TILE_PX), size_bits // _CODE_SET_BITS)
        decoding = 7 * px + code_sets * _CODE_SET_BYTES
    canvas_px = found.width * found.height
    composing = 3 * (px + canvas_px) if canvas_px != px else 0
    orientation = found.orientation or 1
    turning = turn_bytes(found.width, found.height) if orientation != 1 else 0
    return ImageHeader(
        Codec.WEBP,
        found.width,
        found.height,
        orientation,
        decode_bytes=max(decoding, composing, turning) + _FIXED_BYTES + 2 * len(blob),
        kind="lossless WebP" if image.kind == b"VP8L" else "WebP",
        # Usual files have few code sets, so the memory for code sets does not count towards the limit.
        beside_bytes=_FIXED_BYTES + 2 * len(blob) if image.kind == b"VP8L" else 0,
        pixel_bytes=7 if image.kind == b"VP8L" else 0,
    )


def bare_webp(blob: bytes) -> tuple[bytes, WebpImage]:
    """Return a file with only the image that is decoded, without transparency, and that image's description.

    ``blob`` must have passed `read_webp`. Raises ImageError.
    """
    image = _read(blob, None).image
    if image is None:
        raise damaged("its image data are missing")
    payload = blob[image.start : image.end]
    if image.kind == b"VP8L":
        payload = payload[:4] + bytes((payload[4] & ~_LOSSLESS_ALPHA,)) + payload[5:]
    padding = b"\x00" * (len(payload) & 1)
    size = 12 + len(payload) + len(padding)
    head = struct.pack("<4sI4s4sI", b"RIFF", size, b"WEBP", image.kind, len(payload))
    return b"".join((head, payload, padding)), image


def _read(blob: bytes, limits: PixelLimits | None) -> _File:
    """Read the header and all chunks. Raises ImageError, struct.error or IndexError."""
    (riff_bytes,) = struct.unpack_from("<I", blob, 4)
    end = 8 + riff_bytes
    kind = blob[12:16]
    if kind == b"VP8X":
        if len(blob) < 30:
            raise damaged("the file ends within its header")
        flags = blob[20]
        found = _File(
            _size_at(blob, 24), _size_at(blob, 27), bool(flags & _ANIMATION), has_exif=bool(flags & _EXIF)
        )
    else:
        found = _File(*_image_size(kind, blob, 20))
    if limits is not None:
        check_size(found.width, found.height, limits, "a WebP")
    _walk(blob, 12, end, found)
    image = found.image
    if (
        image is not None
        and not found.animated
        and (image.width, image.height) != (found.width, found.height)
    ):
        found.image = None
    return found


def _walk(blob: bytes, position: int, stated_end: int, found: _File) -> None:
    """Read the chunks of a file, which should end at ``stated_end``, into ``found``. Raises ImageError.

    A file that is cut off behind its image is accepted, unless an orientation may be missing.
    """
    end = min(stated_end, len(blob))
    for _ in range(_MAX_CHUNKS):
        if position + 8 > end:
            break
        kind, length = struct.unpack_from("<4sI", blob, position)
        payload = position + 8
        if payload + length > end:
            if end == stated_end:
                raise damaged("a chunk is longer than the file says")
            break
        if found.image is None:
            if kind == b"ANMF" and found.animated:
                found.image = _first_frame(blob, payload, payload + length, found)
            elif kind in (b"VP8 ", b"VP8L") and not found.animated:
                size = _image_size(kind, blob, payload)
                found.image = WebpImage(kind, payload, payload + length, *size)
        if kind == b"EXIF" and found.orientation is None:
            found.orientation = read_orientation(blob[payload : payload + length])
        position = payload + length + (length & 1)
    else:
        raise damaged(f"it has more than {_MAX_CHUNKS} chunks")
    has_all = found.image is not None and (found.orientation is not None or not found.has_exif)
    if end < stated_end and not has_all:
        raise damaged(f"the file is cut off ({len(blob)} of {stated_end} bytes)")


def _first_frame(blob: bytes, start: int, end: int, found: _File) -> WebpImage:
    """Return the image in the animation frame whose payload is at ``start`` to ``end``. Raises ImageError."""
    if end - start < 16:
        raise damaged("its first frame is too short")
    left, top = 2 * (_size_at(blob, start) - 1), 2 * (_size_at(blob, start + 3) - 1)
    said = (_size_at(blob, start + 6), _size_at(blob, start + 9))
    position = start + 16
    for _ in range(_MAX_CHUNKS):
        if position + 8 > end:
            break
        kind, length = struct.unpack_from("<4sI", blob, position)
        payload = position + 8
        if payload + length > end:
            raise damaged("the file is cut off within a chunk")
        if kind in (b"VP8 ", b"VP8L"):
            size = _image_size(kind, blob, payload)
            if size != said or left + size[0] > found.width or top + size[1] > found.height:
                raise damaged("its first frame is of another size than its header says")
            return WebpImage(kind, payload, payload + length, *size, left, top)
        position = payload + length + (length & 1)
    raise damaged("its first frame is missing")


def _size_at(blob: bytes, position: int) -> int:
    """Return a size that is stored in three bytes as the size minus one."""
    return 1 + int.from_bytes(blob[position : position + 3], "little")


def _image_size(kind: bytes, blob: bytes, payload: int) -> tuple[int, int]:
    """Return the size in a ``VP8 `` or ``VP8L`` chunk whose payload begins at ``payload``."""
    (length,) = struct.unpack_from("<I", blob, payload - 4)
    if length < (5 if kind == b"VP8L" else 10):
        raise damaged("its image is too short")
    if kind == b"VP8L":
        mark, bits = struct.unpack_from("<BI", blob, payload)
        if mark != 0x2F:
            raise damaged("its lossless image does not begin with its mark")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        tag, start, width, height = struct.unpack_from("<B2x3sHH", blob, payload)
        if tag & 1 or start != b"\x9d\x01\x2a":
            raise damaged("its image does not begin with a key frame")
        return width & 0x3FFF, height & 0x3FFF
    raise damaged(f"its first chunk is {kind!r}")
