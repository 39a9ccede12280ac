"""Tests that decoding in strips gives the pixels of the whole PNG, for every colour type and filter."""

from __future__ import annotations

import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.imaging import png_strips
from streamer.imaging.decode import decode
from streamer.imaging.image_header import ImageError, Limits
from streamer.imaging.png import bare_png
from streamer.imaging.png_strips import decode_strips
from tests.unit.images import Image, encode, png_chunk, png_claiming, with_exif

COLOURS = {0: (1, (1, 2, 4, 8, 16)), 2: (3, (8, 16)), 3: (1, (1, 2, 4, 8)), 4: (2, (8, 16)), 6: (4, (8, 16))}
KINDS = [(colour, depth) for colour, (_, depths) in COLOURS.items() for depth in depths]


def png_of(width: int, height: int, colour: int, depth: int, seed: int) -> bytes:
    """Return a PNG of random bytes with a random filter per row and a colour for every palette index."""
    random = np.random.default_rng(seed)
    row_bytes = -(-width * COLOURS[colour][0] * depth // 8)
    rows = random.integers(0, 256, (height, 1 + row_bytes), np.uint8)
    rows[:, 0] = random.integers(0, 5, height)
    data = png_claiming(width, height, zlib.compress(rows.tobytes(), 1), depth, colour)
    palette = png_chunk(b"PLTE", random.bytes(3 << depth)) if colour == 3 else b""
    return data[:33] + palette + data[33:]


def whole(data: bytes) -> Image:
    pixels = cv2.imdecode(np.frombuffer(bare_png(data), np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return np.asarray(pixels, np.uint8)


def in_strips(data: bytes | memoryview, shape: tuple[int, ...], rows: list[int] | None = None) -> Image:
    pixels = np.full(shape, 77, np.uint8)
    decode_strips(data, pixels, np.arange(shape[0]) if rows is None else np.asarray(rows, np.intp))
    return pixels


@pytest.fixture(autouse=True)
def small_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_strips, "_STRIP_BYTES", 400)


@pytest.mark.parametrize(("colour", "depth"), KINDS)
@settings(max_examples=25)
@given(st.integers(1, 90), st.integers(1, 40), st.integers(0, 1 << 30))
def test_strips_have_the_pixels_of_the_whole_file(
    colour: int, depth: int, width: int, height: int, seed: int
) -> None:
    data = png_of(width, height, colour, depth, seed)
    expected = whole(data)
    assert np.array_equal(in_strips(memoryview(data), expected.shape), expected)


@pytest.mark.parametrize(("colour", "depth"), KINDS)
def test_only_the_rows_that_are_needed_are_written(colour: int, depth: int) -> None:
    data = png_of(61, 50, colour, depth, 3)
    expected, rows = whole(data), [0, 3, 4, 29, 49]
    found = in_strips(data, expected.shape, rows)
    assert np.array_equal(found[rows], expected[rows])
    assert (np.delete(found, rows, axis=0) == 77).all()


@pytest.mark.parametrize(
    "data",
    [
        png_claiming(32, 32, zlib.compress(bytes(32 * 97))[:-4]),
        png_claiming(32, 32, zlib.compress(bytes(31 * 97))),
        png_claiming(32, 32, zlib.compress(bytes([9]) + bytes(32 * 97 - 1))),
        png_claiming(32, 32, zlib.compress(bytes(32 * 97))[:-4] + bytes(4)),
        png_claiming(32, 32, zlib.compress(bytes(32 * 97 + (80 << 20)), 9)),
    ],
    ids=["no checksum", "a row is missing", "unknown filter", "wrong checksum", "inflates to far more"],
)
def test_a_damaged_file_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="damaged"):
        in_strips(data, (32, 32, 3))


@pytest.mark.parametrize(("orientation", "rotation"), [(1, 0), (6, 0), (3, 1), (5, 2)])
def test_a_large_png_is_resized_to_the_same_pixels(
    orientation: int, rotation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(png_strips, "_STRIP_BYTES", 256 << 10)
    noise = np.random.default_rng(0).integers(0, 255, (288, 384, 3), np.uint8)
    image = np.asarray(cv2.resize(noise, (3072, 2304), interpolation=cv2.INTER_NEAREST), np.uint8)
    data = with_exif(encode(image, ".png", cv2.IMWRITE_PNG_COMPRESSION, 1), orientation)
    header = Limits().read_header(data)
    assert header.pixel_bytes == 3
    full = decode(data, header, rotation=rotation).pixels
    size = (320, 240) if full.shape[1] > full.shape[0] else (180, 240)
    few = decode(data, header, rotation=rotation, resized=size).pixels
    linear = {"interpolation": cv2.INTER_LINEAR}
    assert np.array_equal(cv2.resize(few, size, **linear), cv2.resize(full, size, **linear))
    assert not np.array_equal(few, full), "all pixels were kept"
    if orientation == 1:
        assert np.array_equal(full, image)
