"""Compares each column with a value that is computed another way: by hand or by scipy."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from streamer.drift.features import (
    count_classes,
    grey,
    image_features,
    max_overlap,
    prediction_features,
    thumbnail,
    top_class,
)
from streamer.drift.rows import IMAGE, PREDICTION
from tests.unit.images import Image, scene

DEFAULT_THRESHOLD = np.full((120, 160, 3), (10, 20, 40), np.uint8)


def features(image: Image, before: Image | None = None, bpp: float = 1.0) -> dict[str, float]:
    return image_features(image, thumbnail(image), before, bpp)


def test_a_plain_image_has_the_values_of_its_colour() -> None:
    found = features(DEFAULT_THRESHOLD)
    luma = round(0.299 * 40 + 0.587 * 20 + 0.114 * 10)
    assert tuple(found) == IMAGE
    assert found["brightness"] == pytest.approx(luma, abs=0.5)
    assert found["contrast"] == found["noise"] == found["log_sharpness"] == 0
    assert found["saturation"] == pytest.approx((40 - 10) / 40)
    # A single colour has no spread, so the formula reduces to 0.3 sqrt((R - G)^2 + ((R + G) / 2 - B)^2).
    assert found["colorfulness"] == pytest.approx(0.3 * math.hypot(20, 20))
    assert (found["dark_frac"], found["bright_frac"]) == (0, 0)
    assert features(np.zeros_like(DEFAULT_THRESHOLD))["dark_frac"] == 1
    assert features(np.full_like(DEFAULT_THRESHOLD, 255))["bright_frac"] == 1


def test_shape_bits_and_motion_are_those_of_the_frame() -> None:
    found = features(scene(1920, 1080), bpp=0.8)
    assert found["aspect"] == pytest.approx(16 / 9)
    assert found["log_mpix"] == pytest.approx(math.log(1.92 * 1.08))
    assert found["jpeg_bpp"] == 0.8
    assert math.isnan(found["frame_diff"])
    before = grey(thumbnail(DEFAULT_THRESHOLD))
    assert features(DEFAULT_THRESHOLD, before)["frame_diff"] == 0
    assert features(DEFAULT_THRESHOLD + 10, before)["frame_diff"] == pytest.approx(10, abs=0.6)
    assert math.isnan(features(scene(64, 160), before)["frame_diff"])


def test_thumbnails_average_whatever_the_size() -> None:
    for size in ((640, 480), (1920, 1080), (4000, 3000), (90, 1300)):
        image = scene(*size)
        small = thumbnail(image)
        assert max(small.shape[:2]) == 160
        assert small.mean() == pytest.approx(image.mean(), rel=0.02)


@pytest.mark.parametrize("sigma", [4.0, 8.0, 16.0])
def test_noise_is_found_as_strong_as_it_was_added(sigma: float) -> None:
    rng = np.random.default_rng(0)
    luma = np.clip(128 + rng.normal(0, sigma, (480, 640)), 0, 255).astype(np.uint8)
    assert features(cv2.merge([luma] * 3))["noise"] == pytest.approx(sigma, rel=0.05)


def test_sharpness_is_the_variance_of_the_laplacian_of_the_middle() -> None:
    from scipy import ndimage  # noqa: PLC0415 - imported slowly

    rng = np.random.default_rng(1)
    luma = rng.integers(0, 255, (480, 640)).astype(np.uint8)
    middle = luma[128:352, 208:432].astype(np.float64)
    expected = ndimage.laplace(middle, mode="mirror").var()
    sharp = features(cv2.merge([luma] * 3))["log_sharpness"]
    assert sharp == pytest.approx(math.log1p(expected), rel=1e-6)
    blurred = cv2.GaussianBlur(cv2.merge([luma] * 3), (0, 0), 2)
    assert features(np.asarray(blurred, np.uint8))["log_sharpness"] < sharp - 3


BOXES = np.array(
    [
        [0, 10, 20, 50, 0.9, 0],
        [40, 40, 80, 60, 0.7, 1],
        [45, 40, 80, 60, 0.5, 0],
        [10, 10, 30, 30, 0.2, 2],
    ],
    np.float32,
)


def test_predictions_are_described_in_shares_of_the_image() -> None:
    found = prediction_features(BOXES, 0.5, 100, 100)
    assert tuple(found) == PREDICTION
    assert (found["n_boxes"], found["n_low"], found["no_box"], found["frac_low"]) == (3, 1, 0, 0.25)
    assert found["conf_mean"] == pytest.approx(0.7)
    assert (found["conf_max"], found["conf_min"]) == pytest.approx((0.9, 0.5))
    # The boxes are 20 x 40, 40 x 20 and 35 x 20 in an image of 100 x 100.
    assert found["area_med"] == pytest.approx(0.08)
    assert found["area_max"] == pytest.approx(0.08)
    assert found["log_aspect_med"] == pytest.approx(math.log(35 / 20))
    assert (found["cx_med"], found["cy_med"]) == pytest.approx((0.6, 0.5))
    assert found["edge_frac"] == pytest.approx(1 / 3)
    assert found["n_classes"] == 2
    assert found["overlap_max"] == pytest.approx(35 / 40)
    assert top_class(BOXES, 0.5, ("cat", "dog")) == "cat"
    assert count_classes(BOXES, 0.1, ("cat", "dog")) == (("cat", 2), ("dog", 1), ("2", 1))


def test_an_image_without_boxes_has_no_measures_of_boxes() -> None:
    found = prediction_features(BOXES[:0], 0.5, 100, 100)
    assert (found["n_boxes"], found["no_box"], found["overlap_max"], found["n_classes"]) == (0, 1, 0, 0)
    unknown = ("conf_mean", "frac_low", "area_med", "cx_med", "edge_frac")
    assert all(math.isnan(found[name]) for name in unknown)
    assert top_class(BOXES[:0], 0.5, ()) == "none"
    assert max_overlap(BOXES[:1]) == 0
