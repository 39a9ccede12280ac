"""Describes how the objects of a frame look, so that frames that show nothing new are recognised. Pure.

The descriptor of an object is its crop, as the logarithm of its brightness relative to the ground around it
(8 x 8 cells) and its colour (4 x 4 cells), in levels of detail. Light and exposure multiply the brightness of
object and ground alike, so they change little. A frame is described in the same way, as one crop relative to
its mean. `scene_noise` learns from thumbnails what changes in a stream although nothing is new.
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
from streamer.sampling.image_noise import (
    COLOUR_NOISE_PX,
    NOISE_REGION_PX,
    colour_noise_level,
    noise_level,
)
from streamer.sampling.informativeness import score_uncertainty

Array = npt.NDArray[np.float32]

#: Cells of brightness on each side of a crop, and of colour.
CELLS = 8
COLOUR_CELLS = 4
#: A crop is read in half cells, with so many more at each edge, so that it can be shifted by up to one cell.
_MARGIN = 2
SHIFTS = 2 * _MARGIN + 1
#: Points per half cell, on each side, at which the image is read.
_POINTS = 2
#: At most this many objects of a frame are described, the most uncertain first.
MAX_OBJECTS = 8
#: Objects with a shorter side show nothing. Images are decoded so that the smallest object has at least the
#: second number of pixels, if it has them.
MIN_SIDE_PX = 4.0
DETAIL_PX = 24.0
#: Decoded size of frames without objects, and the longer side of thumbnails.
FRAME_PX = 320.0
THUMBNAIL_PX = 160
#: A level is 1 / 110 of the brightness, as one step of an 8-bit image is at a mean of 110.
LEVELS = 110.0
#: Added to brightness before its logarithm, so that noise in the dark is no contrast: a share of the mean of
#: the frame, and steps of an 8-bit image.
DARK_SHARE = 0.15
DARK_STEPS = 2.0
#: The ground of an object is the median between these distances from its box, in parts of its sides.
_RING = (0.12, 0.5)
_RING_CELLS = 16
_RING_MIN = 16
#: Centres of the crops of the ground, in parts of the frame's sides.
_GROUND_PLACES = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))
#: Longer side to which a large image is reduced before it is described as a whole.
_WHOLE_PX = 640
#: Value of Cr and Cb without colour.
_GREY = np.float32(128)
#: Boxes are enlarged by this part of their sides where noise is measured beside them.
_AROUND = 0.15


@dataclass(frozen=True, slots=True)
class Crop:
    """Describes one crop; values are in levels."""

    #: (25, 64): brightness of the cells relative to the ground, shifted by up to one cell; the middle row is
    #: not shifted.
    light: Array
    #: (32): Cr and Cb of the cells, relative to the ground.
    colour: Array
    #: Brightness of the ground relative to the frame.
    ground: float
    #: Variances of the noise in one cell of brightness and of colour, estimated from this image alone.
    noise: float
    colour_noise: float
    #: Where it is: centre in parts of the frame's sides, and side of one cell in pixels of the thumbnail.
    x: float
    y: float
    cell_px: float


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """Is a small picture of a frame, for comparison with others of the stream. Values are in levels."""

    #: (height, width), relative to the mean of the frame.
    light: npt.NDArray[np.int8]
    #: (height / 2, width / 2, 2): Cr and Cb.
    colour: npt.NDArray[np.int8]
    #: (height, width): whether no box is there.
    free: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Appearance:
    """Describes a frame: its objects, and the frame as a whole."""

    objects: tuple[Crop, ...]
    frame: Crop
    thumbnail: Thumbnail
    #: Crops of the ground, as large as the objects, by their place; places with a box are missing.
    grounds: dict[int, Crop]
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


def describe(
    image: npt.NDArray[np.uint8], boxes: Boxes, width: int, occupied: Boxes | None = None
) -> Appearance:
    """Describe a BGR image and its objects; ``boxes`` are in pixels of the image of that ``width``.

    ``occupied`` are all boxes of the frame, if ``boxes`` are only some of them.
    """
    reader = _CropReader(image)
    scale = image.shape[1] / width
    return Appearance(
        tuple(reader.object_at((row[:4] * scale).tolist()) for row in boxes),
        reader.frame(),
        reader.thumbnail((boxes if occupied is None else occupied)[:, :4] * scale),
        reader.grounds(boxes[:, :4] * scale, (boxes if occupied is None else occupied)[:, :4] * scale),
        fingerprint(reader.small),
    )


class _CropReader:
    """Reads the crops of one image."""

    def __init__(self, image: npt.NDArray[np.uint8]) -> None:
        self._height, self._width = image.shape[:2]
        # Crops of objects are read at full size, and only they are worth it: converting all pixels of a large
        # image takes longer than decoding it.
        self._planes = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb), np.uint8)
        #: The image, reduced if it is large; then its brightness, and Cr and Cb.
        self.small, planes = image, self._planes
        share = _WHOLE_PX / max(self._height, self._width)
        if share < 1:
            size = max(1, round(self._width * share)), max(1, round(self._height * share))
            self.small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
            planes = np.asarray(cv2.cvtColor(self.small, cv2.COLOR_BGR2YCrCb), np.uint8)
        self._light = np.ascontiguousarray(planes[..., 0], np.float32)
        self._colour = np.ascontiguousarray(planes[..., 1:], np.float32) - _GREY
        self._mean = float(self._light.mean())
        self._dark = DARK_SHARE * self._mean + DARK_STEPS
        #: Levels of one step of colour.
        self._gain = LEVELS / (self._mean + self._dark)
        top, left = (max(0, (side - NOISE_REGION_PX) // 2) for side in (self._height, self._width))
        middle = self._planes[top : top + NOISE_REGION_PX, left : left + NOISE_REGION_PX]
        light, red, blue = (plane.astype(np.float32) for plane in cv2.split(middle))
        self._noise, self._colour_noise = noise_level(light), colour_noise_level(red, blue)
        self._to_thumbnail = min(1.0, THUMBNAIL_PX / max(self._height, self._width))

    def object_at(self, box: Sequence[float]) -> Crop:
        return self._crop(box, self._ground(box))

    def frame(self) -> Crop:
        box = 0.0, 0.0, float(self._width), float(self._height)
        return self._crop(box, (self._mean, 0.0, 0.0), whole=True)

    def thumbnail(self, boxes: Array) -> Thumbnail:
        size = tuple(max(1, round(side * self._to_thumbnail)) for side in (self._width, self._height))
        light = cv2.resize(self._light, size, interpolation=cv2.INTER_AREA)
        half = max(1, size[0] // 2), max(1, size[1] // 2)
        colour = cv2.resize(self._colour, half, interpolation=cv2.INTER_AREA) * np.float32(self._gain)
        free = np.ones(light.shape, np.bool_)
        for x1, y1, x2, y2 in boxes:
            around_x, around_y = _AROUND * (x2 - x1), _AROUND * (y2 - y1)
            low = np.maximum(0, np.array([x1 - around_x, y1 - around_y]) * self._to_thumbnail).astype(int)
            high = np.maximum(0, np.array([x2 + around_x, y2 + around_y]) * self._to_thumbnail + 1).astype(
                int
            )
            free[low[1] : high[1], low[0] : high[0]] = False
        return Thumbnail(_int8(self._levels(light, self._mean)), _int8(colour), free)

    def grounds(self, boxes: Array, occupied: Array) -> dict[int, Crop]:
        """Return crops of the ground at fixed places, as large as the median of the boxes."""
        if not len(boxes):
            return {}
        areas = np.maximum(1, boxes[:, 2] - boxes[:, 0]) * np.maximum(1, boxes[:, 3] - boxes[:, 1])
        # Sizes are rounded, so that crops of several frames can be compared.
        step = round(float(np.log2(np.median(areas))))
        half = min(2 ** (step / 2), min(self._width, self._height) / 3) / 2
        found = {}
        for place, (share_x, share_y) in enumerate(_GROUND_PLACES):
            x, y = share_x * self._width, share_y * self._height
            apart = (
                np.abs(occupied[:, [0, 2]].mean(1) - x) * 2 > 2 * half + occupied[:, 2] - occupied[:, 0]
            ) | (np.abs(occupied[:, [1, 3]].mean(1) - y) * 2 > 2 * half + occupied[:, 3] - occupied[:, 1])
            if apart.all():
                found[4 * step + place] = self.object_at((x - half, y - half, x + half, y + half))
        return found

    def _levels(self, light: Array, ground: float) -> Array:
        found: Array = np.float32(LEVELS) * np.log((light + self._dark) / (ground + self._dark))
        return found

    def _ground(self, box: Sequence[float]) -> tuple[float, float, float]:
        """Return brightness, Cr and Cb around a box; of the frame if the box leaves too little of it."""
        inner, outer = (_enlarged(box, share) for share in _RING)
        xs, ys = (
            low + (np.arange(_RING_CELLS) + 0.5) / _RING_CELLS * (high - low)
            for low, high in ((outer[0], outer[2]), (outer[1], outer[3]))
        )
        inside = (xs > inner[0]) & (xs < inner[2]) & ((ys > inner[1]) & (ys < inner[3]))[:, None]
        visible = (xs >= 0) & (xs < self._width) & ((ys >= 0) & (ys < self._height))[:, None]
        around = visible & ~inside
        if around.sum() < _RING_MIN:
            return self._mean, 0.0, 0.0
        light = cells_of(self._planes[..., 0], outer, _RING_CELLS, 1)[around]
        red, blue = np.median(cells_of(self._planes[..., 1:], outer, _RING_CELLS, 1)[around] - _GREY, 0)
        return float(np.median(light)), float(red), float(blue)

    def _crop(self, box: Sequence[float], ground: tuple[float, float, float], *, whole: bool = False) -> Crop:
        x1, y1, x2, y2 = box
        cell_x, cell_y = max(1e-3, (x2 - x1) / CELLS), max(1e-3, (y2 - y1) / CELLS)
        margin = _MARGIN / 2
        reach = (x1 - margin * cell_x, y1 - margin * cell_y, x2 + margin * cell_x, y2 + margin * cell_y)
        share = self._light.shape[1] / self._width if whole else 1.0
        light_plane = self._light if whole else self._planes[..., 0]
        halves = cells_of(light_plane, [share * side for side in reach], 2 * CELLS + 2 * _MARGIN, _POINTS)
        rows = (halves[:-1] + halves[1:]) / 2
        means = (rows[:, :-1] + rows[:, 1:]) / 2
        shifted: Array = np.stack(
            [
                means[row : row + 2 * CELLS : 2, column : column + 2 * CELLS : 2]
                for row in range(SHIFTS)
                for column in range(SHIFTS)
            ]
        ).astype(np.float32)
        if whole:
            colour = cells_of(self._colour, [share * side for side in box], COLOUR_CELLS, 2 * _POINTS)
        else:
            colour = cells_of(self._planes[..., 1:], box, COLOUR_CELLS, 2 * _POINTS) - _GREY
        colour = (colour - np.array(ground[1:], np.float32)) * np.float32(self._gain)
        mean = float(shifted[SHIFTS * SHIFTS // 2].mean())
        area_px = max(1.0, cell_x * cell_y)
        # Noise of colours is measured in cells of some pixels.
        colour_area = max(1.0, area_px * (CELLS / COLOUR_CELLS) ** 2 / COLOUR_NOISE_PX**2)
        return Crop(
            self._levels(shifted, ground[0]).reshape(len(shifted), -1),
            colour.transpose(2, 0, 1).reshape(-1),
            float(self._levels(np.array(ground[0], np.float32), self._mean)),
            (LEVELS / (max(0.0, mean) + self._dark) * self._noise) ** 2 / area_px,
            (self._gain * self._colour_noise) ** 2 / math.sqrt(colour_area),
            (x1 + x2) / 2 / self._width,
            (y1 + y2) / 2 / self._height,
            math.sqrt(cell_x * cell_y) * self._to_thumbnail,
        )


def cells_of(plane: Array | npt.NDArray[np.uint8], box: Sequence[float], count: int, points: int) -> Array:
    """Return the means of ``count`` x ``count`` cells of a box, which may reach beyond the edges.

    Each cell is read at ``points`` x ``points`` points.
    """
    x1, y1, x2, y2 = box
    reduction = max(1, int(min(x2 - x1, y2 - y1) / count / points))
    height, width = plane.shape[:2]
    left, top = (min(max(0, int(low) - reduction), side - 1) for low, side in ((x1, width), (y1, height)))
    right = max(left + 1, min(width, math.ceil(x2) + reduction))
    bottom = max(top + 1, min(height, math.ceil(y2) + reduction))
    part = plane[top:bottom, left:right].astype(np.float32)
    if reduction > 1:
        size = max(1, (right - left) // reduction), max(1, (bottom - top) // reduction)
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    steps = (np.arange(count * points) + 0.5) / (count * points)
    xs = (x1 + steps * (x2 - x1) - left) * (part.shape[1] / (right - left)) - 0.5
    ys = (y1 + steps * (y2 - y1) - top) * (part.shape[0] / (bottom - top)) - 0.5
    map_x, map_y = np.meshgrid(xs.astype(np.float32), ys.astype(np.float32))
    read = cv2.remap(part, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    cells: Array = read.reshape(count, points, count, points, *plane.shape[2:]).mean((1, 3))
    return cells


def _enlarged(box: Sequence[float], share: float) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    around_x, around_y = share * (x2 - x1), share * (y2 - y1)
    return x1 - around_x, y1 - around_y, x2 + around_x, y2 + around_y


def _int8(values: Array) -> npt.NDArray[np.int8]:
    found: npt.NDArray[np.int8] = np.clip(np.rint(values), -127, 127).astype(np.int8)
    return found
