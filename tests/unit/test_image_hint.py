"""Tests that hints state the kind and size of intact images, and a finite size for any other bytes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.imaging.image_header import Limits, read_header
from streamer.scheduling.decode_cost import DecodeCost, Kind, LastHint, hint_of
from tests.unit.heif_files import hevc, libavif_file, libheif_file, tiled
from tests.unit.images import encode, jpeg_claiming, png_claiming, scene, with_exif


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: encode(scene(320, 200)), "jpeg"),
        (lambda: with_exif(encode(scene(320, 200)), 6), "jpeg"),
        (lambda: encode(scene(320, 200), ".png"), "png"),
        (lambda: encode(scene(320, 200), ".webp"), "webp"),
        (lambda: libheif_file(scene(320, 200), thumbnails=[64]), "heic"),
        (lambda: tiled([hevc(64, 64)] * 20, 5, 320, 200).build(), "heic"),
        (lambda: libavif_file(scene(320, 200)), "avif"),
    ],
    ids=["jpeg", "jpeg with exif", "png", "webp", "heic", "heic of tiles", "avif"],
)
def test_sound_images_are_known_by_kind_and_size(make: Callable[[], bytes], name: str) -> None:
    data = make()
    assert hint_of(data)[:2] == (name, 0.064)
    assert hint_of(memoryview(data)) == hint_of(data)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("ending", "parameters"),
    [
        (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 0]),
        (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
        (".png", [cv2.IMWRITE_PNG_COMPRESSION, 1]),
        (".webp", [cv2.IMWRITE_WEBP_QUALITY, 50]),
    ],
)
def test_the_memory_of_a_large_image_is_known_before_it_is_decoded(
    ending: str, parameters: list[int], orientation: int
) -> None:
    data = cv2.imencode(ending, np.zeros((1600, 2000, 3), np.uint8), parameters)[1].tobytes()
    if ending == ".jpg" and orientation != 1:
        data = with_exif(data, orientation)
    reckoned = read_header(data, Limits()).decode_bytes
    assert 0.7 * reckoned <= hint_of(data).peak_bytes <= 1.6 * reckoned


def test_usual_images_are_not_counted() -> None:
    assert hint_of(encode(scene(1920, 1080))).peak_bytes == 0


def test_claims_are_taken_for_what_they_are() -> None:
    assert hint_of(jpeg_claiming(8000, 4000)).megapixels == 32.0
    assert hint_of(jpeg_claiming(8000, 4000, progressive=True)).name == "jpeg progressive"
    assert hint_of(png_claiming(8000, 4000)) == Kind("png", 32.0)


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF1234WEBPVP8 "])
)
def test_anything_else_has_a_size_by_its_bytes(data: bytes, head: bytes) -> None:
    hint = hint_of(head + data)
    assert 0 <= hint.megapixels < float("inf")


def test_a_jpeg_of_empty_segments_is_given_up_soon() -> None:
    image = encode(scene(320, 200))
    few, many = (hint_of(image[:2] + b"\xff\xe0\x00\x02" * count + image[2:]) for count in (5, 200))
    assert few[:2] == ("jpeg", 0.064)
    assert many.name == "", "the size follows so many segments that it is not looked for"


def test_costs_are_learnt_slowly_and_within_bounds() -> None:
    costs = DecodeCost()
    photo = Kind("jpeg", 1.0)
    before = costs.expected_ms(photo)
    costs.learn(photo, 10_000.0)
    assert costs.expected_ms(photo) < before * 1.05, "one slow image changes little"
    for _ in range(2000):
        costs.learn(photo, 20.0)
    assert costs.expected_ms(photo) == pytest.approx(20.0, rel=0.05)
    for _ in range(10_000):
        costs.learn(photo, 1e9)
    assert costs.expected_ms(photo) < before * 20


def test_a_sender_that_changes_its_images_is_noticed() -> None:
    small = encode(scene(320, 200))
    large = jpeg_claiming(8000, 4000), jpeg_claiming(8000, 4000, progressive=True), png_claiming(8000, 4000)
    images = [small, encode(scene(640, 480)), *large, b"no image", b"\xff\xd8", small]
    last = LastHint()
    for data in [each for image in images for each in (image, image, memoryview(image), image + b"more")]:
        assert last.of(data) == hint_of(data)


@given(st.lists(st.binary(max_size=60).map(lambda data: b"\xff\xd8" + data), max_size=20))
def test_the_first_bytes_decide_what_is_remembered(images: list[bytes]) -> None:
    last = LastHint()
    for data in images:
        assert last.of(data) == hint_of(data)


def test_equal_first_bytes_need_no_second_look() -> None:
    last = LastHint()
    first = last.of(encode(scene(320, 200)))
    assert last.of(encode(255 - scene(320, 200))) is first


def test_long_metadata_is_not_kept() -> None:
    image = encode(scene(320, 200))
    segment = b"\xff\xe1" + (60_000).to_bytes(2, "big") + bytes(59_998)
    last = LastHint()
    tracemalloc.start()
    try:
        assert last.of(image[:2] + 20 * segment + image[2:]).name == "jpeg"
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 20_000, "a stream keeps the beginning of its last image"
