"""Without OpenCV, the client decodes, resizes and encodes images to nearly the same result as OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from streamer.client.encoder import as_bgr, decode, encode_jpeg, resize
from streamer.client.errors import BadInput
from tests.unit.images import encode, scene, with_exif


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the mean difference of two images of one size."""
    assert ours.shape == theirs.shape
    return float(np.abs(ours.astype(int) - theirs.astype(int)).mean())


def by_opencv(data: bytes) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_images_come_upright(suffix: str, orientation: int) -> None:
    lossy = (cv2.IMWRITE_WEBP_QUALITY, 80) if suffix == ".webp" else ()
    data = with_exif(encode(scene(), suffix, *lossy), orientation)
    assert difference(decode(data), by_opencv(data)) < 2


@pytest.mark.parametrize("suffix", [".bmp", ".tiff"])
@pytest.mark.parametrize("shape", [(96, 160), (96, 160, 3), (96, 160, 4)])
def test_other_files_are_decoded(suffix: str, shape: tuple[int, ...]) -> None:
    image = np.resize(scene(), shape)
    data = encode(image, suffix)
    assert difference(decode(data), by_opencv(data)) < 2


def test_sixteen_bits_become_eight() -> None:
    data = encode(scene().astype(np.uint16) * 257, ".png")
    assert difference(decode(data), by_opencv(data)) < 2


def test_a_jpeg_that_is_cut_off_is_decoded_as_far_as_it_goes() -> None:
    data = encode(scene(400, 300))
    assert decode(data[: len(data) // 2]).shape == (300, 400, 3)


def test_a_file_that_is_cut_off_in_its_header_is_refused() -> None:
    for suffix in (".jpg", ".png", ".webp"):
        with pytest.raises(BadInput, match="not an image"):
            decode(with_exif(encode(scene(), suffix), 6)[:40])


def test_resizing_takes_means() -> None:
    image = scene(400, 300)
    assert difference(resize(image, (130, 90)), cv2.resize(image, (130, 90), None, 0, 0, cv2.INTER_AREA)) < 3


def test_jpegs_are_as_good_and_as_small() -> None:
    image = scene(400, 300)
    ours, theirs = encode_jpeg(image), encode(image, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 85)
    assert len(ours) < 1.1 * len(theirs)
    assert difference(by_opencv(ours), image) < 1.1 * difference(by_opencv(theirs), image)


def test_an_image_without_pixels_cannot_be_encoded() -> None:
    with pytest.raises(BadInput, match="cannot be encoded"):
        encode_jpeg(np.zeros((0, 4, 3), np.uint8))


def test_grey_and_alpha_become_bgr() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for image in (grey, grey[:, :, None]):
        assert (as_bgr(image) == grey[:, :, None]).all()
        assert as_bgr(image).shape == (3, 4, 3)
    assert (as_bgr(np.dstack([grey] * 4)) == grey[:, :, None]).all()
