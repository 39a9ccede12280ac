"""Payloads: which images the client sends unchanged, which it re-encodes, and how it makes them fit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamer.client.encoder import ImageLimits, decode, encode
from streamer.client.errors import BadInput
from streamer.imaging import decode as service
from streamer.imaging.image_header import read_header
from streamer.imaging.pixel_limits import ImageHeader, NoPixelLimits
from streamer.protocol.wire import Codec
from tests.unit.heif_files import hevc, irot, libavif_file, libheif_file, tiled
from tests.unit.hostile_builders import photograph
from tests.unit.images import encode as encode_file
from tests.unit.images import scene, with_exif

LIMITS = ImageLimits()


def header(data: bytes) -> ImageHeader:
    return read_header(data, NoPixelLimits())


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".jpg", Codec.JPEG), (".png", Codec.PNG), (".webp", Codec.WEBP)]
)
def test_files_that_the_server_takes_go_out_byte_for_byte(suffix: str, codec: Codec, tmp_path: Path) -> None:
    data = encode_file(scene(), suffix)
    (tmp_path / "x").write_bytes(data)
    for image in (data, bytearray(data), memoryview(data), tmp_path / "x", str(tmp_path / "x")):
        encoded = encode(image, LIMITS)
        assert (encoded.payload, encoded.codec, encoded.scale, encoded.size) == (data, codec, (1, 1), (0, 0))


@pytest.mark.parametrize(
    ("make", "codec"),
    [
        (lambda: libheif_file(photograph(96, 64)), Codec.HEIC),
        (lambda: tiled([hevc()] * 2, 2, 100, 60, irot(1)).build(), Codec.HEIC),
        (lambda: libavif_file(photograph(96, 64)), Codec.AVIF),
    ],
    ids=["HEIC", "HEIC of tiles", "AVIF"],
)
def test_heic_and_avif_go_out_as_they_are_or_are_decoded_whole(
    make: Callable[[], bytes], codec: Codec
) -> None:
    data = make()
    encoded = encode(data, LIMITS)
    assert (encoded.payload, encoded.codec) == (data, codec)
    assert np.array_equal(decode(data), service.decode(data, header(data)).pixels)
    smaller = encode(data, LIMITS, max_side=32)
    assert (smaller.codec, max(smaller.size)) == (Codec.JPEG, max(header(data).upright_size))
    with pytest.raises(BadInput, match="not an image that can be decoded: the image is damaged"):
        encode(data[: len(data) // 2], LIMITS)


def test_without_opencv_the_client_says_what_decoding_a_heic_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, "streamer.imaging.heif_pixels", raising=False)
    with pytest.raises(BadInput, match=r"a HEIC image that must be decoded here.*\[view\]"):
        decode(libheif_file(photograph(64, 64)))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_file_that_is_damaged_is_refused_before_it_is_sent(suffix: str) -> None:
    data = encode_file(scene(), suffix)
    # Whether the last pixel of a JPEG or PNG is there, only a decoder can tell.
    for cut in (20, 30, len(data) // 2) if suffix == ".webp" else (20, 30):
        with pytest.raises(BadInput, match="not an image that can be decoded: the image is damaged"):
            encode(data[:cut], LIMITS)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "the image is None"),
        ((False, None), "the image is a tuple"),
        (3.5, "the image is a float"),
        ([[1, 2], [3, 4]], "the image is a list"),
        (np.zeros((4, 4, 3), np.float32), "the array is float32"),
        (np.zeros((4, 4, 2), np.uint8), r"the array has shape \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), "the array has shape"),
        (np.zeros(12, np.uint8), "the array has shape"),
        (np.uint8(3), "the image is a uint8"),
        ("no\0path.jpg", "is not a path"),
        ("/no/such/file.jpg", "No such file"),
    ],
)
def test_what_is_no_image_is_refused_with_what_was_found(value: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        encode(value, LIMITS)


def test_a_jpeg_that_is_cut_off_in_its_pixels_is_left_to_the_server() -> None:
    data = encode_file(scene(400, 300))
    assert encode(data[: len(data) // 2], LIMITS).payload == data[: len(data) // 2]


def test_other_formats_are_re_encoded_as_jpeg() -> None:
    encoded = encode(encode_file(scene(), ".bmp"), LIMITS)
    assert (encoded.codec, encoded.size) == (Codec.JPEG, (160, 96))
    assert header(encoded.payload).codec is Codec.JPEG


def test_an_image_over_the_pixel_limit_is_reduced_and_its_boxes_scale_back() -> None:
    encoded = encode(encode_file(scene(400, 200)), ImageLimits(pixels=20_000))
    size = header(encoded.payload)
    assert size.width * size.height <= 20_000
    assert encoded.scale == (400 / size.width, 200 / size.height)
    assert encoded.size == (400, 200)


def test_max_side_reduces_and_exif_is_applied_when_a_file_must_be_decoded() -> None:
    encoded = encode(with_exif(encode_file(scene(400, 200)), 6), LIMITS, max_side=100)
    size = header(encoded.payload)
    assert (size.width, size.height) == (50, 100)
    assert encoded.size == (200, 400)


def test_what_is_too_many_bytes_is_made_to_fit() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    encoded = encode(noise, ImageLimits(bytes=20_000), quality=95)
    assert len(encoded.payload) <= 20_000
    with pytest.raises(BadInput, match="400x400"):
        encode(noise, ImageLimits(bytes=100))


def test_grey_and_alpha_are_taken() -> None:
    for shape in ((20, 30), (20, 30, 1), (20, 30, 3), (20, 30, 4)):
        assert encode(np.zeros(shape, np.uint8), LIMITS).size == (30, 20)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros(5, np.uint8), "shape"),
    ],
)
def test_arrays_that_are_no_images_are_named(array: np.ndarray, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        encode(array, LIMITS)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    for broken in (b"", b"not an image", encode_file(scene())[:20]):
        with pytest.raises(BadInput, match="not an image"):
            encode(broken, LIMITS)
    with pytest.raises(BadInput, match=r"absent\.jpg"):
        encode(tmp_path / "absent.jpg", LIMITS)


def test_limits_leave_room_for_the_frame_header() -> None:
    assert ImageLimits.from_welcome({"message_bytes": 1000, "side_px": 64}) == ImageLimits(
        976, LIMITS.pixels, 64
    )
    assert ImageLimits.from_welcome({}).side_px == LIMITS.side_px
