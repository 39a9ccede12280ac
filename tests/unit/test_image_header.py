"""Tests how headers of JPEG, PNG and WebP are read: sizes, limits, refused formats, and truncated files."""

from __future__ import annotations

import dataclasses
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.imaging import jpeg
from streamer.imaging.decode import decode
from streamer.imaging.image_header import ImageError, ImageErrorCode, ImageHeader, Limits
from streamer.protocol.wire import Codec
from tests.helpers.cpu_time import least_cpu_s
from tests.unit.hostile_builders import interlaced, photograph
from tests.unit.images import (
    encode,
    exif_block,
    jpeg_claiming,
    png_chunk,
    png_claiming,
    riff,
    scene,
    webp_chunk,
    with_exif,
    with_jpeg_segment,
)

#: Bytes of the end chunk, of the checksum of the data chunk, and of that of the compressed data.
PNG_TAIL_BYTES = 12 + 4 + 4
LIMITS = Limits()
PLAIN = {
    "jpeg": encode(scene()),
    "progressive": encode(scene(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": encode(scene(), ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "png": encode(scene(), ".png"),
    "webp": encode(scene(), ".webp", cv2.IMWRITE_WEBP_QUALITY, 80),
    "lossless webp": encode(scene(), ".webp", cv2.IMWRITE_WEBP_QUALITY, 101),
}


def refusal(data: bytes, limits: Limits = LIMITS) -> ImageError:
    with pytest.raises(ImageError) as caught:
        limits.read_header(data)
    return caught.value


@pytest.mark.parametrize("name", PLAIN)
def test_size_and_codec_are_read(name: str) -> None:
    header = LIMITS.read_header(PLAIN[name])
    codec = {"png": Codec.PNG, "webp": Codec.WEBP, "lossless webp": Codec.WEBP}.get(name, Codec.JPEG)
    assert (header.codec, header.width, header.height, header.orientation) == (codec, 160, 96, 1)
    assert LIMITS.read_header(memoryview(PLAIN[name])) == header


@pytest.mark.parametrize("name", ["jpeg", "progressive", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_upright_size_follows_the_orientation_of_every_codec(name: str, orientation: int) -> None:
    header = LIMITS.read_header(with_exif(PLAIN[name], orientation))
    assert header.orientation == orientation
    assert (header.width, header.height) == (160, 96)
    assert header.upright_size == ((96, 160) if orientation >= 5 else (160, 96))


def test_the_first_exif_block_of_a_jpeg_wins() -> None:
    twice = with_jpeg_segment(with_exif(PLAIN["jpeg"], 3), 0xE1, b"Exif\x00\x00" + exif_block(6))
    assert LIMITS.read_header(twice).orientation == 6


# -- limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bomb",
    [
        jpeg_claiming(65000, 16000),
        png_claiming(30000, 30000, zlib.compress(bytes(100_000_000))),
        png_claiming(0x7FFFFFFF, 0x7FFFFFFF),
        riff(webp_chunk(b"VP8X", bytes(4) + b"\xff\xff\xff\xff\xff\xff")),
        riff(webp_chunk(b"VP8L", struct.pack("<BI", 0x2F, 0x3FFF | 0x3FFF << 14))),
        riff(webp_chunk(b"VP8 ", bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383))),
    ],
)
def test_a_bomb_is_refused_from_its_header_without_time_or_memory(bomb: bytes) -> None:
    took_s = least_cpu_s(lambda: refusal(bomb))
    tracemalloc.start()
    error = refusal(bomb)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert error.code is ImageErrorCode.TOO_LARGE
    assert "8192 pixels a side" in error.detail
    assert took_s < 0.05
    assert peak_bytes < 64_000


def test_limits_hold_at_their_edge() -> None:
    limits = Limits(image_px=160 * 96, image_side_px=160, reducible_px=0)
    for data in PLAIN.values():
        assert limits.read_header(data).width == 160
        for closer in (Limits(image_px=160 * 96 - 1), Limits(image_side_px=159)):
            strict = dataclasses.replace(closer, reducible_px=0)
            assert refusal(data, strict).code is ImageErrorCode.TOO_LARGE


@pytest.mark.parametrize(
    "claim", [jpeg_claiming(8000, 4000), png_claiming(8000, 4000, zlib.compress(bytes(99)))]
)
def test_data_too_short_for_the_pixels_it_claims_is_damaged(claim: bytes) -> None:
    error = refusal(claim)
    assert error.code is ImageErrorCode.DAMAGED
    assert "cannot hold 8000x4000" in error.detail


def test_the_flattest_images_are_not_mistaken_for_damaged() -> None:
    flat = np.full((2048, 2048, 3), 114, np.uint8)
    optimised = (cv2.IMWRITE_JPEG_OPTIMIZE, 1)
    for data in (
        encode(flat, ".jpg", *optimised),
        encode(flat, ".jpg", *optimised, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        encode(flat, ".png", cv2.IMWRITE_PNG_COMPRESSION, 9),
        encode(flat, ".webp"),
    ):
        assert LIMITS.read_header(data).width == 2048


# -- unsupported formats and broken structures -------------------------------------------------------


def test_nothing_is_empty() -> None:
    assert refusal(b"").code is ImageErrorCode.EMPTY


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (encode(scene(), ".bmp"), "BMP"),
        (encode(scene(), ".tiff"), "TIFF"),
        (encode(scene(), ".jp2"), "JPEG 2000"),
        (encode(scene(), ".ppm"), "PNM"),
        (b"GIF89a" + bytes(20), "GIF"),
        (b"hello", "text"),
    ],
)
def test_other_formats_are_unsupported_by_name(data: bytes, name: str) -> None:
    error = refusal(data)
    assert error.code is ImageErrorCode.UNSUPPORTED
    assert name in error.detail
    assert "JPEG, PNG, WebP, HEIC and AVIF" in error.detail


@pytest.mark.parametrize(
    ("offset", "value", "words"),
    [
        (1, 0xF7, "JPEG-LS"),
        (1, 0xC3, "lossless"),
        (1, 0xC5, "hierarchical"),
        (4, 12, "12 bits"),
        (9, 2, "2 channels"),
    ],
)
def test_exotic_jpegs_are_unsupported(offset: int, value: int, words: str) -> None:
    jpeg = bytearray(PLAIN["jpeg"])
    jpeg[jpeg.index(b"\xff\xc0") + offset] = value
    error = refusal(bytes(jpeg))
    assert error.code is ImageErrorCode.UNSUPPORTED
    assert words in error.detail


def test_a_jpeg_that_is_drawn_over_without_end_is_unsupported() -> None:
    jpeg = PLAIN["progressive"]
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    assert "scans" in refusal(jpeg[:-2] + scan * 100 + jpeg[-2:]).detail


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xe0\x00\x01",
        b"\xff\xd8\xff" + b"\xff" * 100_000,
        b"\xff\xd8" + b"\xff\xfe\x00\x02" * 5000,
        PLAIN["jpeg"].replace(b"\xff\xc0", b"\xff\xe7", 1),
        jpeg_claiming(0, 5),
        png_claiming(0, 5),
        png_claiming(5, 5, zlib.compress(bytes(80)), depth=3),
        png_claiming(5, 5, zlib.compress(bytes(80)), colour=5),
        PLAIN["png"][:33] + png_chunk(b"teXt", b"") * 70_000,
        riff(webp_chunk(b"ICCP", bytes(10))),
        riff(webp_chunk(b"VP8L", struct.pack("<BI", 0x2E, 0))),
        riff(webp_chunk(b"VP8 ", bytes(10))),
        riff(webp_chunk(b"VP8X", bytes(10))),
        riff(webp_chunk(b"VP8X", bytes(10)) + webp_chunk(b"XXXX", b"") * 5000),
        riff(webp_chunk(b"VP8X", bytes(10)) + webp_chunk(b"VP8L", struct.pack("<BI", 0x2F, 5))),
    ],
)
def test_broken_structures_are_damaged_and_found_quickly(data: bytes) -> None:
    assert refusal(data).code is ImageErrorCode.DAMAGED
    assert least_cpu_s(lambda: refusal(data)) < 0.2


def test_two_frame_headers_are_damaged() -> None:
    jpeg = PLAIN["jpeg"]
    at = jpeg.index(b"\xff\xc0")
    assert "two frame headers" in refusal(jpeg[:at] + jpeg[at : at + 19] + jpeg[at:]).detail


# -- files that end too early ------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLAIN)
def test_a_file_cut_anywhere_is_damaged(name: str) -> None:
    data = PLAIN[name]
    whole = decode(data, LIMITS.read_header(data)).pixels
    for length in range(1, len(data)):
        try:
            header = LIMITS.read_header(data[:length])
        except ImageError as error:
            assert error.code is ImageErrorCode.DAMAGED, length
        else:
            # A cut in a JPEG's image data is no error here: decoding gets the bytes before the cut.
            if header.codec is Codec.JPEG:
                assert 0 < header.sound_bytes <= length
            else:
                # Whether all image data of a PNG are there shows when they are inflated.
                assert header.codec is Codec.PNG
                try:
                    assert np.array_equal(decode(data[:length], header).pixels, whole)
                except ImageError as error:
                    assert "its image data end early: they have" in error.detail
                    assert length < len(data) - PNG_TAIL_BYTES


@pytest.mark.parametrize("colour", ["grey", "colour", "16 bits", "interlaced", "large"])
def test_a_png_that_is_cut_off_behind_its_last_pixel_is_decoded(colour: str) -> None:
    """The end chunk, the checksum of the data chunk and that of the compressed data hold no pixels."""
    data = {
        "grey": lambda: encode(photograph(200, 150)[..., :1], ".png"),
        "colour": lambda: encode(photograph(200, 150), ".png"),
        "16 bits": lambda: encode(photograph(200, 150).astype(np.uint16) * 257, ".png"),
        "interlaced": lambda: interlaced(200, 150, np.random.default_rng(4).bytes),
        "large": lambda: encode(photograph(1600, 1200), ".png"),
    }[colour]()
    expected = decode(data, LIMITS.read_header(data)).pixels
    for cut in range(1, PNG_TAIL_BYTES + 1):
        part = data[:-cut]
        assert np.array_equal(decode(part, LIMITS.read_header(part)).pixels, expected), cut
    for cut, words in ((100, r"have \d+ of \d+ (rows|bytes)"), (len(data) - 20, "within its header")):
        with pytest.raises(ImageError, match=words):
            decode(data[:-cut], LIMITS.read_header(data[:-cut]))


@pytest.mark.parametrize("cut", [0, 1, 30])
def test_a_webp_may_be_cut_off_behind_its_image(cut: int) -> None:
    xmp = riff(webp_chunk(b"VP8X", b"\x04" + bytes(3) + b"\x9f\0\0\x5f\0\0") + PLAIN["webp"][12:])
    whole = xmp + webp_chunk(b"XMP ", bytes(40))
    whole = whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:]
    assert LIMITS.read_header(whole[: len(whole) - cut]).width == 160
    assert "is cut off" in refusal(xmp[:-9]).detail


def test_a_webp_whose_orientation_is_cut_off_is_damaged() -> None:
    whole = with_exif(PLAIN["webp"], 6)
    assert LIMITS.read_header(whole).orientation == 6
    assert refusal(whole[:-4]).code is ImageErrorCode.DAMAGED


def test_a_webp_of_unknown_length_ends_with_its_image() -> None:
    data = PLAIN["webp"]
    assert LIMITS.read_header(data[:4] + b"\xff\xff\xff\xff" + data[8:]).width == 160


def test_apples_variant_of_png_is_named() -> None:
    error = refusal(PLAIN["png"][:8] + png_chunk(b"CgBI", bytes(4)) + PLAIN["png"][8:])
    assert error.code is ImageErrorCode.UNSUPPORTED
    assert "CgBI" in error.detail


def test_a_cut_is_seen_although_the_thumbnail_is_whole() -> None:
    data = with_jpeg_segment(PLAIN["jpeg"], 0xE1, b"Exif\x00\x00" + exif_block(1) + encode(scene(16, 16)))
    assert LIMITS.read_header(data).sound_bytes == 0
    assert LIMITS.read_header(data[:-2]).sound_bytes == len(data) - 2


@pytest.mark.parametrize("name", PLAIN)
def test_bytes_behind_the_image_do_not_matter(name: str) -> None:
    assert LIMITS.read_header(PLAIN[name] + b"PK\x03\x04 and more" * 1000).width == 160


@settings(max_examples=300)
@given(st.data())
def test_no_bytes_make_it_raise_anything_else(data: st.DataObject) -> None:
    blob = bytearray(PLAIN[data.draw(st.sampled_from(sorted(PLAIN)))])
    for _ in range(data.draw(st.integers(1, 8))):
        blob[data.draw(st.integers(0, min(len(blob) - 1, 700)))] = data.draw(st.integers(0, 255))
    try:
        header = LIMITS.read_header(bytes(blob))
    except ImageError as error:
        assert error.detail
    else:
        assert isinstance(header, ImageHeader)
        assert 1 <= header.width <= 8192
        assert 1 <= header.height <= 8192


# -- heads that `read_header` has seen before --------------------------------------------------------


def verdict(data: bytes, limits: Limits = LIMITS) -> ImageHeader | str:
    try:
        return limits.read_header(data)
    except ImageError as error:
        return str(error)


@given(st.sampled_from(["jpeg", "progressive", "restarts"]), st.data())
@settings(max_examples=300)
def test_a_head_that_was_seen_before_changes_no_verdict(name: str, data: st.DataObject) -> None:
    blob = bytearray(PLAIN[name])
    for _ in range(data.draw(st.integers(0, 3))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    changed = bytes(blob[: data.draw(st.integers(0, len(blob)))])
    jpeg._known_heads = ()
    cold = verdict(changed)
    assert verdict(changed) == cold
    jpeg._known_heads = ()
    for other in PLAIN.values():
        LIMITS.read_header(other)
    assert verdict(changed) == cold


def test_limits_hold_for_a_head_that_was_seen_before() -> None:
    LIMITS.read_header(PLAIN["jpeg"])
    assert refusal(PLAIN["jpeg"], Limits(image_side_px=100, reducible_px=0)).code is ImageErrorCode.TOO_LARGE
    assert verdict(PLAIN["jpeg"]) == LIMITS.read_header(PLAIN["jpeg"])


def test_the_orientation_is_of_the_image_itself() -> None:
    for orientation in (6, 1, 6, 3):
        blob = with_exif(PLAIN["jpeg"], orientation)
        assert LIMITS.read_header(blob).orientation == orientation


def test_few_heads_are_kept_and_no_long_ones() -> None:
    jpeg._known_heads = ()
    for number in range(100):
        LIMITS.read_header(with_jpeg_segment(PLAIN["jpeg"], 0xFE, b"%d" % number))
    assert len(jpeg._known_heads) == jpeg.MAX_KNOWN_HEADS
    before = jpeg._known_heads
    LIMITS.read_header(with_jpeg_segment(PLAIN["jpeg"], 0xFE, bytes(10_000)))
    assert jpeg._known_heads == before
