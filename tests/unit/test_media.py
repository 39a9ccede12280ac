"""Tests decoding: all eight orientations, unusual pixel formats, reductions, and damaged files."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from streamer.imaging.decode import Image, choose_reduction, decode
from streamer.imaging.image_header import ImageError, ImageErrorCode, ImageHeader, Limits
from streamer.protocol.wire import Codec
from tests.unit.images import encode, png_chunk, scene, with_exif

LIMITS = Limits()

#: What a viewer does to the stored pixels for each EXIF orientation. It follows the table of the EXIF
#: standard, which says what row 0 and column 0 of the pixels are.
UPRIGHT: dict[int, Callable[[Image], Image]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: stored[::-1].transpose(1, 0, 2),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: stored[:, ::-1].transpose(1, 0, 2),
}


def decoded(
    data: bytes, rotation: int = 0, target: tuple[int, int] | None = None, *, reduce: bool = False
) -> Image:
    return decode(data, LIMITS.read_header(data), rotation=rotation, target=target, reduce=reduce).pixels


def difference(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(np.int16) - other).max())


@pytest.mark.parametrize("rotation", range(4))
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_image_comes_out_upright(suffix: str, orientation: int, rotation: int) -> None:
    stored = encode(scene(), suffix, *((cv2.IMWRITE_WEBP_QUALITY, 90) if suffix == ".webp" else ()))
    expected = np.rot90(UPRIGHT[orientation](decoded(stored)), -rotation)
    assert difference(decoded(with_exif(stored, orientation), rotation), expected) == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_reduced_image_comes_out_upright_too(orientation: int) -> None:
    data = with_exif(encode(scene(640, 384)), orientation)
    reduced = decoded(data, target=(96, 96), reduce=True)
    full = decoded(data)
    assert reduced.shape[0] * 2 == full.shape[0] or reduced.shape[0] * 4 == full.shape[0]
    size = (full.shape[1], full.shape[0])
    assert difference(cv2.resize(reduced, size, interpolation=cv2.INTER_LINEAR), full) < 16


def test_opencv_agrees_on_the_orientation_of_jpegs() -> None:
    for orientation in range(1, 9):
        data = with_exif(encode(scene()), orientation)
        theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert theirs is not None
        assert difference(decoded(data), theirs) == 0


@pytest.mark.parametrize(
    ("size", "rotation", "target", "denominator"),
    [
        ((1920, 1080), 0, (416, 416), 1),
        ((1920, 1920), 0, (416, 416), 2),
        ((3840, 2160), 0, (416, 416), 2),
        ((8000, 4000), 0, (416, 416), 4),
        ((8000, 8000), 0, (416, 416), 8),
        ((8000, 4000), 1, (416, 832), 4),
        ((8000, 4000), 1, (832, 416), 2),
        ((100, 100), 0, (416, 416), 1),
    ],
)
def test_the_reduction_leaves_twice_the_model_input(
    size: tuple[int, int], rotation: int, target: tuple[int, int], denominator: int
) -> None:
    header = ImageHeader(Codec.JPEG, *size, reducible=True)
    assert choose_reduction(header, rotation, target) == denominator
    assert choose_reduction(ImageHeader(Codec.PNG, *size), rotation, target) == 1


@pytest.mark.parametrize("denominator", [2, 4, 8])
def test_odd_sizes_are_reduced_upwards(denominator: int) -> None:
    data = encode(scene(811, 607))
    target = (607 // (2 * denominator),) * 2
    reduced = decoded(data, target=target, reduce=True)
    assert reduced.shape == (-(-607 // denominator), -(-811 // denominator), 3)


def test_a_target_alone_reduces_nothing() -> None:
    assert decoded(encode(scene(811, 607)), target=(32, 32)).shape == (607, 811, 3)


# -- JPEGs, which have a separate decoder ------------------------------------------------------------


def opencv(data: bytes) -> Image | None:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def textured(width: int, height: int) -> Image:
    noise = np.random.default_rng(7).integers(0, 60, (height, width, 3))
    return (scene(width, height) // 2 + noise).astype(np.uint8)


@pytest.mark.parametrize("size", [(160, 96), (161, 97), (17, 33), (1, 1)], ids=str)
@pytest.mark.parametrize(
    "params",
    [
        (),
        (cv2.IMWRITE_JPEG_QUALITY, 20),
        (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        (cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
        *(
            (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor)
            for factor in (
                cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
                cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
                cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
                cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
            )
        ),
    ],
    ids=str,
)
def test_a_jpeg_has_the_pixels_that_opencv_gives(size: tuple[int, int], params: tuple[int, ...]) -> None:
    for image in (textured(*size), textured(*size)[:, :, 0]):
        data = encode(image, ".jpg", *params)
        expected = opencv(data)
        assert expected is not None
        assert np.array_equal(decoded(data), expected)
        assert np.array_equal(decode(memoryview(data), LIMITS.read_header(data)).pixels, expected)


# -- pixel formats -----------------------------------------------------------------------------------


def test_grey_becomes_bgr() -> None:
    grey = scene()[:, :, 0]
    assert difference(decoded(encode(grey, ".png")), np.stack([grey] * 3, axis=2)) == 0


def test_sixteen_bits_become_their_upper_eight() -> None:
    image = scene()
    deep = image.astype(np.uint16) * 256 + 99
    assert difference(decoded(encode(deep, ".png")), image) == 0


def test_alpha_is_left_out_without_blending() -> None:
    image = scene()
    clear = np.dstack([image, np.zeros(image.shape[:2], np.uint8)])
    assert difference(decoded(encode(clear, ".png")), image) == 0


def test_one_pixel_is_a_image() -> None:
    for suffix in (".jpg", ".png", ".webp"):
        assert decoded(encode(np.full((1, 1, 3), 200, np.uint8), suffix)).shape == (1, 1, 3)


def test_the_first_image_of_an_animation_is_taken() -> None:
    still = encode(scene(), ".png")
    control = png_chunk(b"acTL", (2).to_bytes(4, "big") + bytes(4))
    assert difference(decoded(still[:33] + control + still[33:]), scene()) == 0

    animation = cv2.Animation()
    animation.frames = [scene(), np.zeros_like(scene())]
    animation.durations = [100, 100]
    done, encoded = cv2.imencodeanimation(".webp", animation, [cv2.IMWRITE_WEBP_QUALITY, 101])
    assert done
    assert difference(decoded(encoded.tobytes()), scene()) < 8


# -- damage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_data_that_does_not_decode_is_damaged(suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(encode(scene(), suffix))
    middle = len(data) // 2
    data[middle : middle + 30] = bytes(30)
    if suffix == ".webp":
        data[30:60] = bytes(30)
    with pytest.raises(ImageError) as caught:
        decoded(bytes(data))
    assert caught.value.code is ImageErrorCode.DAMAGED
    capfd.readouterr()  # discard the line that the codec library prints


@pytest.mark.parametrize("size", [(161, 96), (160, 95), (96, 160), (8, 8)], ids=str)
def test_a_header_that_differs_from_the_data_is_damaged(size: tuple[int, int]) -> None:
    data = encode(scene())
    with pytest.raises(ImageError, match="its data differs"):
        decode(data, ImageHeader(Codec.JPEG, *size))


def test_data_that_claim_more_than_their_header_get_no_memory_for_it() -> None:
    data = encode(np.zeros((2000, 2000, 3), np.uint8))
    tracemalloc.start()
    with pytest.raises(ImageError, match="its data differs"):
        decode(data, ImageHeader(Codec.JPEG, 160, 96))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 1_000_000


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_half_a_file_that_slipped_through_gives_no_garbage(
    suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = encode(scene(), suffix)
    header = LIMITS.read_header(data)
    for share in (0.3, 0.5, 0.7, 0.9, 0.99):
        with pytest.raises(ImageError):
            decode(data[: int(len(data) * share)], header)
    capfd.readouterr()
