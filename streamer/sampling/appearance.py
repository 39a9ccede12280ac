"""Describes how the objects of a frame look, so that frames that show nothing new are recognised. Pure.

The descriptor of an object is its crop, reduced to 8 x 8 cells of brightness and 4 x 4 cells of colour. Means
over cells suppress noise; what remains of it is estimated from the image and subtracted from distances. The
mean of the frame's brightness and the contrast of the crop are normalised, so that light and exposure change
little. A frame without objects is described as one crop of the whole frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from inference.core.detections import Boxes
from streamer.sampling.candidate_image import fingerprint
from streamer.sampling.informativeness import score_uncertainty

Array = npt.NDArray[np.float32]

#: Cells of brightness on each side, with one more at each edge for the search of the best alignment; and of
#: colour.
CELLS = 8
PADDED_CELLS = CELLS + 2
COLOUR_CELLS = 4
#: Points per cell, on each side, at which a crop is read.
_POINTS = 4
#: At most this many objects of a frame are described, the most uncertain first.
MAX_OBJECTS = 8
#: Objects with a shorter side show nothing. Images are decoded so that the smallest object has at least the
#: second number of pixels, if it has them.
MIN_SIDE_PX = 4.0
DETAIL_PX = 24.0
#: Decoded size of frames without objects.
FRAME_PX = 320.0
#: Mean brightness to which frames are normalised, and the largest factor.
TARGET_LEVEL = 110.0
MAX_GAIN = 8.0
#: Standard deviation over the cells to which crops are normalised, and the deviation that counts as half a
#: contrast: a flat crop must not become a picture of its noise.
SPREAD = 30.0
FLAT_SPREAD = 12.0
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


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Describes one crop. Values are in levels of a normalised 8-bit image."""

    #: (10, 10): brightness without its mean, with normalised contrast.
    light: Array
    #: (4, 4, 2): Cr and Cb.
    colour: Array
    #: Mean brightness.
    mean: float
    #: Variances of the noise of one cell of brightness, of one cell of colour, and of the mean.
    noise: float
    colour_noise: float
    mean_noise: float


@dataclass(frozen=True, slots=True)
class Appearance:
    """Describes a frame: its objects, and the frame as a whole."""

    objects: tuple[Descriptor, ...]
    frame: Descriptor
    #: Difference hash of the whole frame.
    fingerprint: int


def subjects(boxes: Boxes, before: Boxes | None, threshold: float) -> Boxes:
    """Return the boxes of the objects that describe a frame; those of the previous frame if it has none.

    An object that is missed for one frame is where it was in the previous one.
    """
    found = boxes if len(boxes) or before is None else before
    sides = np.minimum(found[:, 2] - found[:, 0], found[:, 3] - found[:, 1])
    found = found[sides >= MIN_SIDE_PX]
    order = np.argsort(-score_uncertainty(found[:, 4], threshold), kind="stable")
    described: Boxes = found[order[:MAX_OBJECTS]]
    return described


def decoded_size(boxes: Boxes, width: int, height: int) -> tuple[int, int]:
    """Return the size to which the image may be reduced before :func:`describe`."""
    share = FRAME_PX / max(width, height)
    if len(boxes):
        side = float(np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]).min())
        share = max(share, DETAIL_PX / side)
    share = min(1.0, share)
    return math.ceil(width * share), math.ceil(height * share)


def describe(image: npt.NDArray[np.uint8], boxes: Boxes, width: int) -> Appearance:
    """Describe a BGR image and its objects; ``boxes`` are in pixels of the image of that ``width``."""
    level = max(1.0, float(image.mean()))
    gain = min(MAX_GAIN, TARGET_LEVEL / level)
    planes = cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb).astype(np.float32)
    light, colour = planes[..., 0] * np.float32(gain), (planes[..., 1:] - 128) * np.float32(gain)
    noise = noise_level(light), colour_noise_level(colour)
    scale = image.shape[1] / width
    return Appearance(
        tuple(_descriptor(light, colour, (row[:4] * scale).tolist(), noise) for row in boxes),
        _descriptor(light, colour, (0.0, 0.0, float(image.shape[1]), float(image.shape[0])), noise),
        fingerprint(image),
    )


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


def colour_noise_level(planes: Array) -> float:
    """Return the standard deviation of the noise of colours, as means over cells of ``COLOUR_NOISE_PX``."""
    side = COLOUR_NOISE_PX * COLOUR_NOISE_BLOCK
    rows, columns = planes.shape[0] // side, planes.shape[1] // side
    if min(rows, columns) < 2:
        return 0.0
    size = columns * COLOUR_NOISE_BLOCK, rows * COLOUR_NOISE_BLOCK
    region = planes[: rows * side, : columns * side]
    cells = cv2.resize(region, size, interpolation=cv2.INTER_AREA)
    blocks = cells.reshape(rows, COLOUR_NOISE_BLOCK, columns, COLOUR_NOISE_BLOCK, 2)
    return float(np.quantile(np.sqrt(blocks.var((1, 3)).mean(-1)), FLAT_SHARE))


def _descriptor(light: Array, colour: Array, box: Sequence[float], noise: tuple[float, float]) -> Descriptor:
    x1, y1, x2, y2 = box
    step_x, step_y = max(1e-3, (x2 - x1) / CELLS), max(1e-3, (y2 - y1) / CELLS)
    cells = _cells(light, (x1 - step_x, y1 - step_y, x2 + step_x, y2 + step_y), PADDED_CELLS)
    mean = float(cells[1:-1, 1:-1].mean())
    pattern = cells - mean
    cell_px = max(1.0, step_x * step_y)
    variance = noise[0] ** 2 / cell_px
    spread = float(np.square(pattern[1:-1, 1:-1]).mean())
    gain = SPREAD / math.sqrt(spread + FLAT_SPREAD**2 + variance)
    # Larger cells have less noise only by the root of their area, because spots of colour are large.
    colour_cells_px = math.sqrt(cell_px) * CELLS / COLOUR_CELLS
    return Descriptor(
        pattern * np.float32(gain),
        _cells(colour, box, COLOUR_CELLS),
        mean,
        variance * gain**2,
        noise[1] ** 2 / max(1.0, colour_cells_px / COLOUR_NOISE_PX),
        variance / CELLS**2,
    )


def _cells(plane: Array, box: Sequence[float], count: int) -> Array:
    """Return the means of ``count`` x ``count`` cells of a box, which may reach beyond the edges."""
    x1, y1, x2, y2 = box
    reduction = max(1, int(min(x2 - x1, y2 - y1) / count / _POINTS))
    height, width = plane.shape[:2]
    left, top = (min(max(0, int(low) - reduction), side - 1) for low, side in ((x1, width), (y1, height)))
    right = max(left + 1, min(width, math.ceil(x2) + reduction))
    bottom = max(top + 1, min(height, math.ceil(y2) + reduction))
    part = plane[top:bottom, left:right]
    if reduction > 1:
        size = max(1, (right - left) // reduction), max(1, (bottom - top) // reduction)
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    points = (np.arange(count * _POINTS) + 0.5) / (count * _POINTS)
    xs = (x1 + points * (x2 - x1) - left) * (part.shape[1] / (right - left)) - 0.5
    ys = (y1 + points * (y2 - y1) - top) * (part.shape[0] / (bottom - top)) - 0.5
    map_x, map_y = np.meshgrid(xs.astype(np.float32), ys.astype(np.float32))
    read = cv2.remap(part, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    cells: Array = read.reshape(count, _POINTS, count, _POINTS, *plane.shape[2:]).mean((1, 3))
    return cells
