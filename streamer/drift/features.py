"""Computes the features of a frame: of the image, and of the boxes that the model found in it. Pure.

Image features come from a thumbnail and from a crop of the middle in full resolution. A thumbnail alone would
hide blur and noise, and measuring the whole image takes 20 times as long (12 ms instead of 0.5 ms at 1080p).
"""

from __future__ import annotations

import math
from collections import Counter

import cv2
import numpy as np
import numpy.typing as npt

from inference.core.overlap import pairwise_iou
from streamer.drift.rows import IMAGE, PREDICTION, CategoryCounts

Image = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.float32]

THUMB_PX = 160
CROP_PX = 224
#: If the longer side exceeds this, averaging all pixels takes too long, so only every n-th pixel is averaged.
STRIDE_ABOVE_PX = 1280
DARK_BELOW, BRIGHT_ABOVE = 16, 239
_IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)

#: Overlaps are computed among this many boxes, best scores first.
MAX_BOXES = 50
#: A box closer to the edge than this share of the side counts as touching it.
EDGE_SHARE = 0.01
#: At most this many labels are counted in one row; if an image has more, the most frequent ones.
MAX_CLASSES = 8
NO_CLASS = "none"


# -- the image -------------------------------------------------------------------------------------------


def thumbnail(image: Image) -> Image:
    """Return a BGR image scaled to a longer side of ``THUMB_PX`` by area averaging, without aliasing."""
    longer = max(image.shape[:2])
    if longer > STRIDE_ABOVE_PX:
        step = longer // (4 * THUMB_PX)
        image = image[::step, ::step]
    scale = THUMB_PX / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def grey(image: Image) -> Image:
    """Return the luma of a BGR image (ITU-R BT.601)."""
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
        # is closer to a symmetric distribution.
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
    response = cv2.filter2D(luma.astype(np.float32), cv2.CV_32F, _IMMERKAER)[1:-1, 1:-1]
    return math.sqrt(math.pi / 2) / 6 * float(np.abs(response).mean())


def frame_difference(luma: Image, before: Image | None) -> float:
    """Return the mean absolute difference of two thumbnails; 0 means that the camera is frozen.

    NaN without a previous thumbnail of the same size.
    """
    if before is None or before.shape != luma.shape:
        return math.nan
    return float(cv2.absdiff(luma, before).mean())


def _middle(image: Image) -> Image:
    height, width = image.shape[:2]
    top, left = max(0, (height - CROP_PX) // 2), max(0, (width - CROP_PX) // 2)
    return grey(np.ascontiguousarray(image[top : top + CROP_PX, left : left + CROP_PX]))


def _saturation(image: Image) -> float:
    """Return the mean HSV saturation of the pixels, (max - min) / max, in [0, 1]."""
    greatest = image.max(axis=2).astype(np.float64)
    span = greatest - image.min(axis=2)
    return float((span / np.maximum(greatest, 1)).mean())


# -- the predictions -------------------------------------------------------------------------------------


def prediction_features(boxes: Boxes, threshold: float, width: int, height: int) -> dict[str, float]:
    """Return the columns of ``PREDICTION``.

    ``boxes`` are (N, 6): xyxy in pixels of the upright image of ``width`` x ``height``, score, class id,
    including those below ``threshold``. Positions and sizes are computed from the boxes at or above the
    threshold, as shares of the image; NaN without such a box.
    """
    over = boxes[boxes[:, 4] >= np.float32(threshold)]
    shown, low = len(over), len(boxes) - len(over)
    values = (
        shown,
        low,
        float(shown == 0),
        *_scores(over),
        low / len(boxes) if len(boxes) else math.nan,
        *_places(over, width, height),
        len(set(over[:, 5].tolist())),
        max_overlap(over[:MAX_BOXES]),
    )
    return dict(zip(PREDICTION, map(float, values), strict=True))


def count_classes(boxes: Boxes, threshold: float, labels: tuple[str, ...]) -> CategoryCounts:
    """Return how many boxes at or above ``threshold`` each label has, the most frequent label first."""
    over = boxes[boxes[:, 4] >= np.float32(threshold)]
    counts = Counter(_label(int(number), labels) for number in over[:, 5].tolist())
    return tuple(counts.most_common(MAX_CLASSES))


def top_class(boxes: Boxes, threshold: float, labels: tuple[str, ...]) -> str:
    """Return the label of the box with the highest score; `none` if no box reaches ``threshold``."""
    over = boxes[boxes[:, 4] >= np.float32(threshold)]
    return _label(int(over[np.argmax(over[:, 4]), 5]), labels) if len(over) else NO_CLASS


def max_overlap(boxes: Boxes) -> float:
    """Return the greatest IoU of any two boxes; 0 with fewer than two."""
    if len(boxes) < 2:
        return 0.0
    corners = boxes[:, :4].astype(np.float64)
    ious = pairwise_iou(corners, corners)
    np.fill_diagonal(ious, 0.0)
    return float(ious.max())


def _label(number: int, labels: tuple[str, ...]) -> str:
    return labels[number] if number < len(labels) else str(number)


def _scores(boxes: Boxes) -> tuple[float, float, float]:
    """Return conf_mean, conf_max, conf_min."""
    if not len(boxes):
        return math.nan, math.nan, math.nan
    scores = boxes[:, 4].astype(np.float64)
    return float(scores.mean()), float(scores.max()), float(scores.min())


def _places(boxes: Boxes, width: int, height: int) -> tuple[float, ...]:
    """Return area_med, area_max, log_aspect_med, cx_med, cy_med, edge_frac."""
    if not len(boxes):
        return (math.nan,) * 6
    x1, y1, x2, y2 = (boxes[:, :4].astype(np.float64) / (width, height, width, height)).T
    wide, high = np.maximum(x2 - x1, 1e-6), np.maximum(y2 - y1, 1e-6)
    areas = wide * high
    touching = np.minimum.reduce([x1, y1, 1 - x2, 1 - y2]) <= EDGE_SHARE
    return (
        float(np.median(areas)),
        float(areas.max()),
        float(np.median(np.log(wide * width / (high * height)))),
        float(np.median((x1 + x2) / 2)),
        float(np.median((y1 + y2) / 2)),
        float(touching.mean()),
    )
