"""Decoding takes no more memory than allowed: JPEGs are reduced if that is enough, the rest is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from streamer.imaging.decode import decode
from streamer.imaging.image_header import ImageError, ImageErrorCode, ImageHeader, Limits
from streamer.imaging.pixel_limits import DECODE_BYTES
from tests.unit import hostile_jpegs as jpegs
from tests.unit.heif_files import hevc, irot, libavif_file, libheif_file, tiled
from tests.unit.hostile_builders import cmyk, interlaced
from tests.unit.images import Image, encode, jpeg_claiming, png_claiming, scene, with_exif

PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
MODEL = (640, 480)


def flat(width: int, height: int) -> Image:
    return np.full((height, width, 3), 90, np.uint8)


def screen() -> Image:
    """Return a 1080p image whose lossless WebP could contain thousands of sets of Huffman codes."""
    tile = np.random.default_rng(0).integers(0, 255, (270, 480, 3), np.uint8)
    return np.tile(tile, (4, 4, 1))


def refusal(data: bytes, most_bytes: int, resized: tuple[int, int] | None = None) -> ImageError:
    header = Limits().read_header(data)
    with pytest.raises(ImageError) as caught:
        decode(data, header, resized=resized, most_bytes=most_bytes)
    return caught.value


def size_of(header: ImageHeader) -> tuple[int, int]:
    return header.width, header.height


COMMON = {
    "progressive JPEG of a phone": lambda: encode(flat(4032, 3024), ".jpg", *PROGRESSIVE),
    "turned progressive JPEG": lambda: with_exif(encode(flat(4032, 3024), ".jpg", *PROGRESSIVE), 6),
    "JPEG of 33 megapixels": lambda: encode(flat(8000, 4100)),
    "turned, without end marker": lambda: with_exif(encode(flat(8000, 4100)), 6)[:-2],
    "PNG of 12 megapixels": lambda: encode(flat(4032, 3024), ".png"),
    "PNG of 33 megapixels": lambda: encode(flat(8000, 4100), ".png"),
    "lossless WebP of a screen": lambda: encode(screen(), ".webp", cv2.IMWRITE_WEBP_QUALITY, 101),
    "HEIC of a phone": lambda: tiled([hevc(512, 512)] * 48, 8, 4032, 3024, irot(3)).build(),
    "AVIF of 12 megapixels": lambda: libavif_file(flat(4000, 3000), subsampling="4:2:0", speed=10),
    "WebP in 4K": lambda: encode(flat(3840, 2160), ".webp", cv2.IMWRITE_WEBP_QUALITY, 80),
}


@pytest.mark.parametrize("name", COMMON)
def test_common_images_are_decoded_at_full_size(name: str) -> None:
    data = COMMON[name]()
    header = Limits().read_header(data)
    resized = (480, 640) if header.orientation == 6 else MODEL
    decoded = decode(data, header, resized=resized, most_bytes=DECODE_BYTES)
    assert (decoded.reduced, decoded.damaged) == (1, False)
    assert decoded.pixels.shape[1::-1] == header.upright_size


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: encode(flat(1600, 1200), ".jpg", *PROGRESSIVE), "progressive JPEG"),
        (lambda: encode(flat(1600, 1200), ".webp", cv2.IMWRITE_WEBP_QUALITY, 80), "WebP"),
        (lambda: encode(flat(1600, 1200), ".webp", cv2.IMWRITE_WEBP_QUALITY, 101), "lossless WebP"),
        (lambda: interlaced(1600, 1200, bytes), "interlaced PNG"),
        (lambda: libheif_file(flat(1600, 1200)), "HEIC"),
        (lambda: libavif_file(flat(1600, 1200)), "AVIF"),
        (lambda: jpegs.unusual(32), "JPEG of unusual sampling"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_takes_too_much_memory_is_refused_with_a_way_out(make: Callable[[], bytes], kind: str) -> None:
    data = make()
    header = Limits().read_header(data)
    error = refusal(data, header.decode_bytes // 3, MODEL)
    assert error.code is ImageErrorCode.TOO_LARGE
    assert f"the image is {header.width}x{header.height} pixels" in error.detail
    assert f"decoding this {kind} takes" in error.detail
    assert "send a baseline JPEG, or fewer pixels" in error.detail


def test_the_number_of_pixels_that_a_refusal_names_is_accepted() -> None:
    error = refusal(encode(flat(4000, 3000), ".jpg", *PROGRESSIVE), 24 << 20)
    assert "enough for some 4 megapixels" in error.detail
    smaller = encode(flat(2310, 1732), ".jpg", *PROGRESSIVE)
    assert not decode(smaller, Limits().read_header(smaller), most_bytes=24 << 20).damaged


def test_a_jpeg_that_takes_too_much_memory_is_reduced() -> None:
    image = scene(1600, 1200)
    data = encode(image)
    header = Limits().read_header(data)
    for most_bytes, scale in ((9 << 20, 1), (4 << 20, 2), ((2 << 20) + 400_000, 4)):
        decoded = decode(data, header, most_bytes=most_bytes)
        assert decoded.reduced == scale
        expected = cv2.resize(image, (1600 // scale, 1200 // scale), interpolation=cv2.INTER_AREA)
        assert np.abs(decoded.pixels.astype(int) - expected).max() < 12


def test_damage_is_not_looked_for_where_that_takes_too_much_memory() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (288, 384, 3), np.uint8)
    data = encode(np.asarray(cv2.resize(noise, (3072, 2304)), np.uint8))
    cut = data[: len(data) * 9 // 10]
    header = Limits().read_header(cut)
    assert decode(cut, header, resized=(320, 240), most_bytes=DECODE_BYTES).damaged
    error = refusal(cut, 20 << 20, (320, 240))
    assert (error.code, "too large to find out" in error.detail) == (ImageErrorCode.DAMAGED, True)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(("pixels", "scale"), [(239_799, 1), (239_798, 2), (50_000, 4), (4000, 8)])
def test_a_jpeg_over_the_pixel_limit_is_reduced(pixels: int, scale: int, orientation: int) -> None:
    limits = Limits(image_px=pixels, reducible_px=1_000_000)
    data = with_exif(encode(scene(601, 399)), orientation)
    header = limits.read_header(data)
    assert (header.reduction, size_of(header)) == (scale, (601, 399))
    decoded = decode(data, header)
    assert decoded.reduced == scale
    size = (-(-601 // scale), -(-399 // scale))
    assert decoded.pixels.shape[:2] == (size if orientation == 6 else size[::-1])


def test_a_side_over_the_limit_is_reduced_too() -> None:
    limits = Limits(image_side_px=100)
    assert limits.read_header(encode(scene(400, 8))).reduction == 4


def test_the_end_of_a_reduced_jpeg_may_be_missing_or_damaged() -> None:
    limits = Limits(image_px=200_000)
    random = np.random.default_rng(1).integers(0, 255, (50, 75, 3), np.uint8)
    data = encode(np.asarray(cv2.resize(random, (600, 400)), np.uint8))
    for cut, damaged in ((len(data), False), (len(data) - 2, False), (len(data) * 9 // 10, True)):
        blob = data[:cut]
        decoded = decode(blob, limits.read_header(blob))
        assert (decoded.reduced, decoded.damaged) == (2, damaged)
    with pytest.raises(ImageError, match="of its rows can be read, and 75 % are needed"):
        decode(data[: len(data) // 2], limits.read_header(data[: len(data) // 2]))


def test_a_broken_cmyk_image_is_refused_as_such() -> None:
    data = cmyk()[:-22] + b"\xfe" * 20 + b"\xff\xd9"
    with pytest.raises(ImageError, match="no part of a damaged CMYK image can be read") as caught:
        decode(data, Limits().read_header(data))
    assert caught.value.code is ImageErrorCode.DAMAGED


def test_beyond_the_second_limit_a_jpeg_is_refused() -> None:
    limits = Limits(image_px=100_000, reducible_px=200_000)
    with pytest.raises(ImageError, match=r"or 0.2 megapixels of a JPEG, which is then decoded at a reduced"):
        limits.read_header(jpeg_claiming(600, 400))
    with pytest.raises(ImageError, match=r"allowed are 8192 pixels a side and 0.1 megapixels$"):
        dataclasses.replace(limits, reducible_px=100_000).read_header(jpeg_claiming(600, 400))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: png_claiming(600, 400), "a PNG"),
        (lambda: encode(scene(600, 400), ".webp", cv2.IMWRITE_WEBP_QUALITY, 80), "a WebP"),
        (lambda: libheif_file(scene(600, 400)), "a HEIC"),
        (lambda: libavif_file(scene(600, 400)), "an AVIF"),
        (
            lambda: jpegs.head(jpegs.ARITHMETIC, 600, 400) + jpegs.scan((1, 2, 3), data=bytes(9)),
            "an arithmetic-coded",
        ),
        (lambda: jpegs.unusual(32), "a JPEG of unusual sampling"),
    ],
    ids=["PNG", "WebP", "HEIC", "AVIF", "arithmetic-coded JPEG", "JPEG of unusual sampling"],
)
def test_what_cannot_be_reduced_says_so(make: Callable[[], bytes], kind: str) -> None:
    data = make()
    limits = Limits(image_px=100)
    with pytest.raises(ImageError, match=f"{kind}.* cannot be reduced while it is decoded") as caught:
        limits.read_header(data)
    assert caught.value.code is ImageErrorCode.TOO_LARGE
    assert "a baseline JPEG of up to 134.2 megapixels can" in caught.value.detail


# -- JPEGs without an end marker ---------------------------------------------------------------------


def textured(*options: int) -> bytes:
    random = np.random.default_rng(2).integers(0, 255, (60, 80, 3), np.uint8)
    return encode(np.asarray(cv2.resize(random, (320, 240)), np.uint8), ".jpg", *options)


@pytest.mark.parametrize("options", [(), PROGRESSIVE, (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)], ids=str)
@pytest.mark.parametrize(
    "behind", [b"", bytes(3000), b"\xff\xd8\xff\xe0", b"\xff"], ids=lambda data: data[:4].hex()
)
def test_without_an_end_marker_a_jpeg_is_whole_if_its_scans_are(
    options: tuple[int, ...], behind: bytes
) -> None:
    data = textured(*options)
    cut = data[:-2] + behind
    decoded = decode(cut, Limits().read_header(cut))
    assert not decoded.damaged
    assert np.array_equal(decoded.pixels, decode(data, Limits().read_header(data)).pixels)


@pytest.mark.parametrize("missing", [1, 2, 5, 40])
@pytest.mark.parametrize("options", [(), PROGRESSIVE], ids=str)
def test_one_byte_of_the_last_scan_less_is_damage(options: tuple[int, ...], missing: int) -> None:
    cut = textured(*options)[: -2 - missing]
    assert decode(cut, Limits().read_header(cut)).damaged


def test_a_progressive_jpeg_that_lacks_its_last_scan_is_damaged() -> None:
    data = textured(*PROGRESSIVE)
    cut = data[: data.rindex(b"\xff\xda")]
    cut = cut[: cut.rindex(b"\xff\xc4")]
    assert decode(cut, Limits().read_header(cut)).damaged


def test_a_refusal_says_how_much_is_missing() -> None:
    for options, said in (
        ((), "% of its rows can be read, and 75 % are"),
        (PROGRESSIVE, "% of its coefficients"),
    ):
        data = textured(*options)[:3000]
        with pytest.raises(ImageError, match=said):
            decode(data, Limits().read_header(data))
