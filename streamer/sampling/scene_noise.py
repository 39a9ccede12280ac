"""Learns what changes in the pictures of a stream although nothing is new: noise, leaves, clouds. Pure.

Thumbnails of frames are compared with the previous one and with an older one, where neither has a box. The
variance of their difference is measured in Haar coefficients, by size of the blocks and by place, because
leaves move at one side of the picture and have a size. Noise in any crop follows from that, by interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from streamer.sampling.appearance import CELLS, COLOUR_CELLS, Appearance, Crop, Thumbnail
from streamer.sampling.haar import level_slices, quarters, transform

Array = npt.NDArray[Any]

#: Sides of the blocks whose noise is measured, in pixels of the thumbnail.
SCALES = (1, 2, 4, 8, 16, 32)
#: Places in which it is measured, on each side of the frame, and how many frames' worth that of the whole
#: frame counts beside that of a place.
PLACES = 4
PRIOR_FRAMES = 2.0
#: Least weight of a new frame beside those before it, and number of frames after which the older thumbnail is
#: replaced.
MIN_WEIGHT = 0.1
ANCHOR_FRAMES = 16
#: From the second number of frames on, one frame can raise the noise of a place to so many times what it was.
MAX_RISE = 4.0
SETTLED_FRAMES = 4
#: Least variance that is clipped to, in squared levels.
RISE_FLOOR = 4.0
#: Standard deviation of the difference of two frames in levels up to which it is noise, and from which it is
#: content: pictures of a moving camera, or by many people.
NOISE_UP_TO, CONTENT_FROM = 35.0, 50.0


@dataclass(frozen=True, slots=True)
class CropNoise:
    """Holds the variance of one coefficient by level, the mean first: of brightness (4) and of colour (3)."""

    light: Array
    colour: Array
    #: Part of the noise that was estimated from a single image, in brightness and colour, that is noise and
    #: not texture of the scene.
    sensor: float = 1.0
    colour_sensor: float = 1.0

    @property
    def block_variances(self) -> Array:
        """Variances (3) of the means of one cell of brightness, of 2 x 2 and of 4 x 4 cells."""
        mean, *details = self.light / np.array([64, 64 / 3, 16 / 3, 4 / 3])
        found: Array = mean + np.cumsum(details)[::-1]
        return found

    @property
    def colour_variances(self) -> Array:
        """Variances (2) of the means of one cell of each colour, and of 2 x 2 cells."""
        mean, *details = self.colour / np.array([16, 16 / 3, 4 / 3])
        found: Array = mean + np.cumsum(details)[::-1]
        return found


@dataclass(frozen=True, slots=True)
class _Measured:
    """Is what one pair of frames, or the mean of several, shows; all values are in squared levels."""

    #: (6, 4, 4) by scale and place; of colours from the second scale on.
    light: Array
    colour: Array
    #: (4) and (3) by level of the frame as a whole.
    frame_light: Array
    frame_colour: Array
    #: Variance of the difference of two frames.
    total: float

    def fields(self) -> tuple[Array, ...]:
        return self.light, self.colour, self.frame_light, self.frame_colour, np.array([self.total])


class SceneNoise:
    """Learns the noise of one stream."""

    def __init__(self) -> None:
        self._last: Thumbnail | None = None
        self._anchor: Thumbnail | None = None
        self._frames = 0
        self._measured: _Measured | None = None

    def observe(self, shown: Appearance) -> None:
        """Learn from the next frame."""
        pairs = [
            _measure(shown.thumbnail, before)
            for before in (self._last, self._anchor)
            if before is not None and before.light.shape == shown.thumbnail.light.shape
        ]
        found = [pair for pair in pairs if pair is not None]
        if self._anchor is None or self._frames % ANCHOR_FRAMES == 0:
            self._anchor = self._last
        self._last = shown.thumbnail
        if found:
            self._add(
                [np.maximum.reduce(parts) for parts in zip(*(one.fields() for one in found), strict=True)]
            )

    def of(self, crop: Crop) -> CropNoise:
        """Return the noise of an object."""
        measured = self._measured
        if measured is None:
            return CropNoise(np.zeros(4, np.float32), np.zeros(3, np.float32))
        rest, cell = self.rest(), crop.cell_px
        row, column = (min(PLACES - 1, max(0, int(PLACES * share))) for share in (crop.y, crop.x))
        light = _interpolated(self._local(measured.light)[:, row, column], 0)
        colour = _interpolated(self._local(measured.colour)[:, row, column], 1)
        # Coefficients of each level are twice as large for the same means. The ground has noise, too.
        return CropNoise(
            rest * np.array([96 * light(8 * cell), 16 * light(4 * cell), 4 * light(2 * cell), light(cell)]),
            rest * np.array([16 * colour(8 * cell), 4 * colour(4 * cell), colour(2 * cell)]),
            1 - rest * (1 - min(1.0, light(cell) / min(1.0, cell) ** 2 / max(1e-6, crop.noise))),
            1 - rest * (1 - min(1.0, colour(2 * cell) / min(1.0, cell) ** 2 / max(1e-6, crop.colour_noise))),
        )

    def of_frame(self) -> CropNoise:
        """Return the noise of the frame as a whole."""
        measured = self._measured
        if measured is None:
            return CropNoise(np.zeros(4, np.float32), np.zeros(3, np.float32))
        rest = self.rest()
        return CropNoise(rest * measured.frame_light, rest * measured.frame_colour)

    def state(self) -> list[Any]:
        """Return what was learned, in types of msgpack, for :meth:`restore`."""
        measured = self._measured.fields() if self._measured is not None else ()
        return [self._frames, *(part.astype(np.float32).tobytes() for part in measured)]

    def restore(self, state: Sequence[Any]) -> None:
        """Continue from a state. Raises TypeError or ValueError if it is none."""
        frames, *parts = state
        shapes = ((len(SCALES), PLACES, PLACES), (len(SCALES) - 1, PLACES, PLACES), (4,), (3,), (1,))
        if not parts:
            return
        arrays = [
            np.frombuffer(part, np.float32).reshape(shape) for part, shape in zip(parts, shapes, strict=True)
        ]
        if not all(np.isfinite(part).all() and (part >= 0).all() for part in arrays):
            raise ValueError("the noise holds values that are not finite or negative")
        light, colour, frame_light, frame_colour, total = arrays
        self._frames = int(frames)
        self._measured = _Measured(light, colour, frame_light, frame_colour, float(total[0]))

    def rest(self) -> float:
        """Return 1 for a camera at rest, and 0 for pictures that have nothing to do with each other."""
        total = math.sqrt(self._measured.total) if self._measured is not None else 0.0
        return min(1.0, max(0.0, (CONTENT_FROM - total) / (CONTENT_FROM - NOISE_UP_TO)))

    def _local(self, by_place: Array) -> Array:
        share = PRIOR_FRAMES / (PRIOR_FRAMES + self._frames)
        found: Array = share * by_place.mean((1, 2), keepdims=True) + (1 - share) * by_place
        return found

    def _add(self, parts: list[Array]) -> None:
        if self._measured is not None:
            weight = max(MIN_WEIGHT, 1 / (self._frames + 1))
            known = self._measured.fields()
            if self._frames >= SETTLED_FRAMES:
                parts = [
                    np.minimum(part, MAX_RISE * old + RISE_FLOOR)
                    for part, old in zip(parts, known, strict=True)
                ]
            parts = [old + np.float32(weight) * (part - old) for part, old in zip(parts, known, strict=True)]
        self._frames += 1
        light, colour, frame_light, frame_colour, total = parts
        self._measured = _Measured(light, colour, frame_light, frame_colour, float(total[0]))


def _measure(shown: Thumbnail, before: Thumbnail) -> _Measured | None:
    """Return the noise in the difference of two frames; None if boxes cover most of it."""
    free = shown.free & before.free
    if free.mean() < 0.2:
        return None
    root = np.float32(math.sqrt(0.5))
    light = (shown.light.astype(np.float32) - before.light) * root
    light -= np.median(light[free])
    colour = (shown.colour.astype(np.float32) - before.colour) * root
    visible = free.astype(np.float32)
    half = cv2.resize(visible, colour.shape[1::-1], interpolation=cv2.INTER_AREA)
    by_scale = [_by_scale(light, visible, SCALES)]
    by_scale += [_by_scale(np.ascontiguousarray(colour[..., plane]), half, SCALES[:-1]) for plane in (0, 1)]
    frame_light = _by_level(light, visible, CELLS)
    frame_colour = (
        _by_level(colour[..., 0], half, COLOUR_CELLS) + _by_level(colour[..., 1], half, COLOUR_CELLS)
    ) / 2
    total = 2 * float(np.square(light[free]).mean())
    return _Measured(by_scale[0], (by_scale[1] + by_scale[2]) / 2, frame_light, frame_colour, total)


def _by_scale(plane: Array, visible: Array, scales: tuple[int, ...]) -> Array:
    """Return the mean square of the Haar coefficients of means, by scale and place."""
    found: list[Array] = []
    means, weights = plane, visible
    for scale in scales:
        if scale > 1:
            height, width = (side // 2 for side in means.shape)
            if min(height, width) < 2:
                found.append(found[-1])
                continue
            means = np.add.reduce(quarters(means)) / 4
            weights = np.minimum.reduce(quarters(weights))
        a, b, c, d = quarters(means)
        squares = (np.square(a + b - c - d) + np.square(a - b + c - d) + np.square(a - b - c + d)) / 12
        seen = np.minimum.reduce(quarters(weights))
        seen = np.where(seen > 0.99, seen, 0).astype(np.float32)
        found.append(_by_place(squares.astype(np.float32), seen))
    return np.stack(found)


def _by_place(squares: Array, seen: Array) -> Array:
    size = (PLACES, PLACES)
    total = float(seen.sum())
    everywhere = float((squares * seen).sum()) / total if total else 0.0
    weights = cv2.resize(seen, size, interpolation=cv2.INTER_AREA)
    sums = cv2.resize(squares * seen, size, interpolation=cv2.INTER_AREA)
    return np.where(weights > 0.05, sums / np.maximum(weights, 1e-6), everywhere).astype(np.float32)


def _by_level(plane: Array, visible: Array, cells: int) -> Array:
    """Return the mean squares of the Haar coefficients of the frame as a whole, by level."""
    seen = cv2.resize(visible, (cells, cells), interpolation=cv2.INTER_AREA)
    sums = cv2.resize(plane * visible, (cells, cells), interpolation=cv2.INTER_AREA)
    means = np.where(seen > 0.2, sums / np.maximum(seen, 0.2), 0)
    squares = np.square(transform(means.astype(np.float32)))
    share = max(0.1, float((seen > 0.2).mean()))
    return np.array([squares[level].mean() / share for level in level_slices(cells)], np.float32)


def _interpolated(values: Array, first: int) -> Callable[[float], float]:
    """Return a function from a size of blocks in pixels of the thumbnail to the variance of their means."""
    logs = np.log(np.maximum(values, 1e-6))
    steps = np.arange(first, first + len(values))
    return lambda size: float(np.exp(np.interp(math.log2(max(size, 1e-3)), steps, logs)))
