"""Estimates the noise of a sensor, and of compression, from a single image. Pure."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

#: Noise is estimated in the flattest quarter of the blocks of this size, in at most so many pixels in the
#: middle of the image, at full size and reduced: noise that a camera has smoothed has no high frequencies.
NOISE_BLOCK = 16
NOISE_REGION_PX = 640
FLAT_SHARE = 0.25
NOISE_SCALES = (1, 2, 4)
#: Side in pixels of the cells in which the noise of colours is measured, and cells per block. JPEG leaves
#: noise of colours in large spots, which have no high frequencies.
COLOUR_NOISE_PX = 4
COLOUR_NOISE_BLOCK = 8
#: J. Immerkaer, Fast noise variance estimation, 1996: the difference of two Laplacians, with a gain of 6.
_HIGH_PASS = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_HIGH_PASS_GAIN = 6.0


def noise_level(plane: Array) -> float:
    """Return the standard deviation of the noise of one pixel, in levels of ``plane``."""
    top, left = (max(0, (side - NOISE_REGION_PX) // 2) for side in plane.shape)
    region = plane[top : top + NOISE_REGION_PX, left : left + NOISE_REGION_PX]
    found = 0.0
    for scale in NOISE_SCALES:
        height, width = (side // scale for side in region.shape)
        rows, columns = height // NOISE_BLOCK, width // NOISE_BLOCK
        if min(rows, columns) < 2:
            break
        small = region if scale == 1 else cv2.resize(region, (width, height), interpolation=cv2.INTER_AREA)
        high = np.abs(cv2.filter2D(small, cv2.CV_32F, _HIGH_PASS))
        blocks = high[: rows * NOISE_BLOCK, : columns * NOISE_BLOCK]
        means = blocks.reshape(rows, NOISE_BLOCK, columns, NOISE_BLOCK).mean((1, 3))
        # The mean of absolute values of normal numbers is sqrt(2 / pi) of their standard deviation.
        level = float(np.quantile(means, FLAT_SHARE)) * math.sqrt(math.pi / 2) / _HIGH_PASS_GAIN
        # Means over scale x scale pixels have 1 / scale of the noise of a pixel.
        found = max(found, level * scale)
    return found


def colour_noise_level(*planes: Array) -> float:
    """Return the standard deviation of the noise of colours, as means over cells of ``COLOUR_NOISE_PX``.

    ``planes`` are Cr and Cb.
    """
    side = COLOUR_NOISE_PX * COLOUR_NOISE_BLOCK
    height, width = planes[0].shape
    rows, columns = height // side, width // side
    if min(rows, columns) < 2:
        return 0.0
    size = columns * COLOUR_NOISE_BLOCK, rows * COLOUR_NOISE_BLOCK
    shape = rows, COLOUR_NOISE_BLOCK, columns, COLOUR_NOISE_BLOCK
    variances = []
    for plane in planes:
        region = plane[: rows * side, : columns * side]
        cells = cv2.resize(region, size, interpolation=cv2.INTER_AREA)
        variances.append(cells.reshape(shape).var((1, 3)))
    return float(np.quantile(np.sqrt(np.mean(variances, 0)), FLAT_SHARE))
