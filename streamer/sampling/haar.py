"""Splits square patches and planes into their levels of detail, by Haar wavelets. Pure.

Noise differs in size: that of a sensor is fine, leaves and clouds are coarse. A Haar coefficient compares
neighbouring blocks of one size, so noise of that size is all in it, and that of other sizes is not.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def transform(patches: Array) -> Array:
    """Return the orthonormal Haar coefficients (..., n * n) of patches (..., n, n); n is a power of 2.

    The first one is n times the mean; the 3, 12, 48 … of each finer level follow.
    """
    levels = []
    means = patches
    while means.shape[-1] > 1:
        a, b, c, d = quarters(means)
        details = np.stack([a + b - c - d, a - b + c - d, a - b - c + d], -3) / 2
        levels.append(details.reshape(*patches.shape[:-2], -1))
        means = (a + b + c + d) / 2
    levels.append(means.reshape(*patches.shape[:-2], 1))
    return np.concatenate(levels[::-1], -1)


def quarters(plane: Array) -> tuple[Array, Array, Array, Array]:
    """Return the four corners of all blocks of 2 x 2 values; an odd last row or column is left out."""
    height, width = (side // 2 * 2 for side in plane.shape[-2:])
    even, odd = plane[..., 0:height:2, :], plane[..., 1:height:2, :]
    return even[..., 0:width:2], even[..., 1:width:2], odd[..., 0:width:2], odd[..., 1:width:2]


def level_slices(cells: int) -> list[slice]:
    """Return where the levels are in the coefficients of a patch of ``cells`` x ``cells``, the mean first."""
    ends = [1]
    while ends[-1] < cells * cells:
        ends.append(4 * ends[-1])
    return [slice(0, 1), *(slice(low, high) for low, high in pairwise(ends))]
