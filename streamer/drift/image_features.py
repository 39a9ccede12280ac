"""Measures of a picture, on a thumbnail and on a native crop of its middle. Pure.

Thumbnails hide blur and noise, full pictures cost 20 times as much (12 ms for 1080p against 0.5 ms).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from streamer.drift.columns import IMAGE

Image = npt.NDArray[np.uint8]

THUMB_PX = 160
CROP_PX = 224
#: Above this side, averaging over all pixels costs more than it gives: every n-th pixel is taken first.
STRIDE_ABOVE_PX = 1280
DARK_BELOW, BRIGHT_ABOVE = 16, 239
_IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


def thumbnail(image: Image) -> Image:
    """Return a BGR picture with its longer side ``THUMB_PX`` long, averaged (linear resizing aliases)."""
    longer = max(image.shape[:2])
    if longer > STRIDE_ABOVE_PX:
        step = longer // (4 * THUMB_PX)
        image = image[::step, ::step]
    scale = THUMB_PX / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def grey(image: Image) -> Image:
    """Return the luma of a BGR picture (ITU-R BT.601)."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)


def image_features(image: Image, small: Image, before: Image | None, bpp: float) -> dict[str, float]:
    """Return the columns of ``IMAGE``.

    ``image`` is upright uint8 BGR (height, width, 3), ``small`` its :func:`thumbnail`, ``before`` the luma of
    the stream's previous thumbnail or None, ``bpp`` the bits per pixel of a JPEG or NaN.
    """
    luma = grey(small)
    height, width = image.shape[:2]
    middle = _middle(image)
    values = (
        float(luma.mean()),
        float(luma.std()),
        float((luma < DARK_BELOW).mean()),
        float((luma > BRIGHT_ABOVE).mean()),
        _saturation(small),
        colorfulness(small),
        # Variance of the Laplacian, a measure of focus (Pech-Pacheco et al., ICPR 2000); its logarithm
        # is nearer to symmetric.
        math.log1p(float(cv2.Laplacian(middle, cv2.CV_64F).var())),
        noise(middle),
        bpp,
        width / height,
        math.log(width * height / 1e6),
        frame_difference(luma, before),
    )
    return dict(zip(IMAGE, values, strict=True))


def colorfulness(image: Image) -> float:
    """Return M3 of Hasler and Suesstrunk (SPIE 2003): spread and mean of the opponent colours."""
    blue, green, red = (image[..., channel].astype(np.float64) for channel in range(3))
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    spread = math.hypot(red_green.std(), yellow_blue.std())
    return spread + 0.3 * math.hypot(red_green.mean(), yellow_blue.mean())


def noise(luma: Image) -> float:
    """Return the standard deviation of the noise after Immerkaer (CVIU 1996); 0 below 3x3 pixels."""
    height, width = luma.shape
    if height < 3 or width < 3:
        return 0.0
    answer = cv2.filter2D(luma.astype(np.float32), cv2.CV_32F, _IMMERKAER)[1:-1, 1:-1]
    return math.sqrt(math.pi / 2) / 6 * float(np.abs(answer).mean())


def frame_difference(luma: Image, before: Image | None) -> float:
    """Return the mean difference of two thumbnails: 0 is a frozen camera. NaN without one of equal size."""
    if before is None or before.shape != luma.shape:
        return math.nan
    return float(cv2.absdiff(luma, before).mean())


def _middle(image: Image) -> Image:
    height, width = image.shape[:2]
    top, left = max(0, (height - CROP_PX) // 2), max(0, (width - CROP_PX) // 2)
    return grey(np.ascontiguousarray(image[top : top + CROP_PX, left : left + CROP_PX]))


def _saturation(image: Image) -> float:
    """Return the mean of (max - min) / max over the pixels, as HSV has it, in [0, 1]."""
    greatest = image.max(axis=2).astype(np.float64)
    span = greatest - image.min(axis=2)
    return float((span / np.maximum(greatest, 1)).mean())
