"""Builds hostile images: broken ones, too long ones, and ones with more content than one image."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np

from tests.unit import hostile_jpegs as jpegs
from tests.unit.hostile_jpegs import scan
from tests.unit.images import Image, encode, png_chunk, png_claiming, scene, webp_chunk


def photograph(width: int = 320, height: int = 240) -> Image:
    """Return a random image with details everywhere, like a photograph."""
    noise = np.random.default_rng(5).integers(0, 256, (height // 8, width // 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def bomb() -> bytes:
    """Return compressed data that inflate to 512 MiB: one compressed megabyte of zeros, 512 times."""
    size = 512 << 20
    deflater = zlib.compressobj(9, wbits=-15)
    megabyte = deflater.compress(bytes(1 << 20)) + deflater.flush(zlib.Z_FULL_FLUSH)
    # Header, compressed data, checksum: the Adler-32 of zeros depends on their number alone.
    return b"\x78\xda" + megabyte * 512 + deflater.flush() + struct.pack(">HH", size % 65521, 1)


JPEG = encode(photograph())
PROGRESSIVE = encode(photograph(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
RESTARTS = encode(photograph(), ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 5)
PNG = encode(photograph(), ".png")
WEBP = encode(photograph(), ".webp", cv2.IMWRITE_WEBP_QUALITY, 80)
LOSSLESS = encode(photograph(), ".webp", cv2.IMWRITE_WEBP_QUALITY, 101)
#: Compressed data that inflate to 512 MiB.
BOMB = bomb()


def first_part(data: bytes, share: float, end: bytes = b"") -> bytes:
    """Return the first ``share`` (0 to 1) of a file, followed by ``end``."""
    return data[: int(len(data) * share)] + end


def overwritten(data: bytes, begin: float, end: float, seed: int = 1) -> bytes:
    """Return a file with random bytes between ``begin`` and ``end``, both shares (0 to 1) of its length."""
    start, stop = int(len(data) * begin), int(len(data) * end)
    noise = np.random.default_rng(seed).integers(0, 256, stop - start).astype(np.uint8).tobytes()
    return data[:start] + noise + data[stop:]


def idat(data: bytes) -> bytes:
    """Return a PNG of 64x64 pixels with this compressed data."""
    return png_claiming(64, 64, data)


def behind_header(png: bytes, chunks: bytes) -> bytes:
    """Insert chunks into a PNG, right behind its header."""
    return png[:33] + chunks + png[33:]


def plain() -> bytes:
    """Return the compressed scanlines of a black RGB image of 64x64 pixels."""
    return zlib.compress(bytes(64 * (1 + 64 * 3)))


def apng(frames: int = 3) -> bytes:
    """Return an animated PNG in which every frame after the first inflates to 512 MiB."""
    still = encode(scene(64, 64), ".png")
    chunks = png_chunk(b"acTL", struct.pack(">II", frames, 0))
    control = struct.pack(">IIIIHHBB", 64, 64, 0, 0, 1, 10, 0, 0)
    chunks += png_chunk(b"fcTL", struct.pack(">I", 0) + control)
    more = b"".join(
        png_chunk(b"fcTL", struct.pack(">I", 2 * number - 1) + control)
        + png_chunk(b"fdAT", struct.pack(">I", 2 * number) + BOMB)
        for number in range(1, frames)
    )
    return still[:33] + chunks + still[33:-12] + more + still[-12:]


def interlaced(width: int, height: int, line: Callable[[int], bytes], surplus: bytes = b"") -> bytes:
    """Return an interlaced RGB PNG; ``line(n)`` must return ``n`` bytes of pixels."""
    raw = []
    for x, y, dx, dy in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        columns, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        if columns > 0:
            raw += [b"\x00" + line(3 * columns) for _ in range(rows)]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    data = zlib.compress(b"".join(raw) + surplus)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data)
    return b"\x89PNG\r\n\x1a\n" + chunks + png_chunk(b"IEND", b"")


def animation(width: int = 64, height: int = 64) -> bytes:
    """Return an animated WebP of three images."""
    moving = cv2.Animation()
    moving.frames = [scene(width, height), np.zeros((height, width, 3), np.uint8), scene(width, height)]
    moving.durations = [100, 100, 100]
    done, encoded = cv2.imencodeanimation(".webp", moving, [cv2.IMWRITE_WEBP_QUALITY, 101])
    assert done
    return bytes(encoded.tobytes())


def image_chunk(webp: bytes) -> bytes:
    """Return the image chunk of a simple WebP file."""
    return webp[12:]


def frame_chunk(image: bytes, width: int, height: int, left: int = 0, top: int = 0) -> bytes:
    """Return the WebP chunk of an animation frame, which is shown for 100 ms."""
    sizes = (left // 2, top // 2, width - 1, height - 1, 100)
    return webp_chunk(b"ANMF", b"".join(size.to_bytes(3, "little") for size in sizes) + b"\x00" + image)


def canvas(width: int, height: int, flags: int) -> bytes:
    """Return the header chunk of an extended WebP."""
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return webp_chunk(b"VP8X", struct.pack("<I", flags) + sizes)


def bmp_as(magic: bytes) -> bytes:
    """Return a BMP file behind the first bytes of another image format."""
    return magic + encode(scene(), ".bmp")


def cmyk() -> bytes:
    """Return a CMYK JPEG of 64x64 pixels whose four channels have the middle value everywhere."""
    return (
        jpegs.head(jpegs.BASELINE, 64, 64, (0x11,) * 4) + jpegs.one_code(1, 0) + four_channels() + jpegs.EOI
    )


def four_channels() -> bytes:
    return scan((1, 2, 3, 4), data=jpegs.zero_bits(2 * 4 * 64 - 8))


def thousands_of_scans(marker: int) -> bytes:
    begin = jpegs.head(marker, 8192, 4096)
    return begin + jpegs.one_code(1, 0) + scan((1, 2, 3), data=bytes(400_000)) + scan((1,)) * 5000 + jpegs.EOI


def last_scan(jpeg: bytes) -> bytes:
    return jpeg[jpeg.rindex(b"\xff\xda") : -2]


def black(depth: int, colour: int) -> bytes:
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    raw = bytes(32 * (1 + -(-32 * channels * depth // 8)))
    png = png_claiming(32, 32, zlib.compress(raw), depth, colour)
    return (
        behind_header(png, png_chunk(b"PLTE", bytes(6)) + png_chunk(b"tRNS", bytes(2)))
        if colour == 3
        else png
    )


def spread(data: bytes, count: int) -> bytes:
    """Return a PNG of 64x64 pixels whose data are split into at most ``count`` chunks."""
    size = -(-len(data) // count)
    chunks = b"".join(png_chunk(b"IDAT", data[at : at + size]) for at in range(0, len(data), size))
    empty = idat(b"")
    return empty[:33] + chunks + empty[-12:]


def cut_data(png: bytes, share: float) -> bytes:
    start = png.index(b"IDAT")
    data = png[start + 4 : start + 4 + int(8000 * share)]
    return png[:33] + png_chunk(b"IDAT", data) + png[-12:]
