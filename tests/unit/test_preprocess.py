"""Tests that the model's input matches the formula for every convention, for many sizes and layouts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from inference.models.layout import CONVENTIONS, Convention
from inference.models.manifest import Colour
from inference.models.model import Placement
from inference.preprocess.preprocess import Preprocessor

CORNERS = ((0, 0), (1, 0), (0, 1), (1, 1))
OWN = Convention(
    placement=Placement.STRETCH,
    pad_value=114,
    colour=Colour.RGB,
    scale=1 / 255,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)


def expected(frame: npt.NDArray[np.uint8], convention: Convention) -> npt.NDArray[np.float64]:
    """Return the model's input by the formula: float64 of shape (3, height, width)."""
    pixels = frame[:, :, ::-1] if convention.colour is Colour.RGB else frame
    mean, std = np.array(convention.mean), np.array(convention.std)
    numbers: npt.NDArray[np.float64] = (pixels.astype(np.float64) * convention.scale - mean) / std
    return numbers.transpose(2, 0, 1)


@pytest.mark.parametrize("convention", [*dict.fromkeys(CONVENTIONS.values()), OWN])
@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (2, 2), (7, 5), (63, 65), (64, 64), (96, 33), (320, 256)]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float16, 1e-3)])
def test_planes_hold_what_the_formula_says(
    convention: Convention, width: int, height: int, dtype: type[np.floating], tolerance: float
) -> None:
    random = np.random.default_rng(width)
    preprocessor = Preprocessor(convention, width, height)
    for _ in range(2):  # the second frame must not depend on the first
        frame = random.integers(0, 256, (height, width, 3), np.uint8)
        planes: npt.NDArray[np.floating] = np.full((3, height, width), np.nan, dtype)
        preprocessor.fill(frame, planes)
        assert np.allclose(planes, expected(frame, convention), tolerance, tolerance)


@pytest.mark.parametrize("order", [CORNERS, CORNERS[::-1]])
@pytest.mark.parametrize(("width", "height"), [(2, 2), (6, 4), (64, 66), (416, 320)])
def test_patches_hold_every_second_pixel(width: int, height: int, order: tuple[tuple[int, int], ...]) -> None:
    frame = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    patches = np.full((12, height // 2, width // 2), np.nan, np.float32)
    Preprocessor(OWN, width, height, order).fill(frame, patches)
    whole = expected(frame, OWN)
    for number, (row, column) in enumerate(order):
        assert np.allclose(patches[3 * number : 3 * number + 3], whole[:, row::2, column::2], 1e-6, 1e-6)
