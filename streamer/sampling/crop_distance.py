"""Says how different two crops look, beyond what noise and light explain. Pure.

In crops of objects, what does not differ from the ground by more than the noise of the scene counts as
ground: it is 0 in both crops, so that leaves and a moving belt make no difference. Frames as a whole have no
ground; the expected noise is subtracted from their squared differences, by level of detail.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streamer.sampling.appearance import CELLS, COLOUR_CELLS, SHIFTS, Crop
from streamer.sampling.haar import level_slices, quarters, transform
from streamer.sampling.scene_noise import CropNoise

Array = npt.NDArray[Any]

LIGHT_VALUES = CELLS**2
COLOUR_VALUES = 2 * COLOUR_CELLS**2
#: Values of a crop in a row: brightness, colour, ground, noise of brightness and of colour.
VALUES = LIGHT_VALUES + COLOUR_VALUES + 3
#: Row of `Crop.light` that is not shifted.
_CENTRE = SHIFTS**2 // 2
#: Cells, and blocks of 2 x 2 and 4 x 4 of them, that differ from the ground by more than so many standard
#: deviations of the noise, and by more than so many levels, belong to the object.
OBJECT_DEVIATIONS = 2.0
LEAST_CONTRAST = 4.0
#: Largest factor between the contrasts of two crops of one object in other light.
MAX_GAIN = 1.15
#: Squared shift, in cells, by which the edges in two crops of one object differ because their boxes do, and
#: parts of the energy of brightness and of colour.
EDGE_SHIFT = 0.035
TOLERANCE, COLOUR_TOLERANCE = 0.005, 0.03
#: Times the expected noise of the sensor that is subtracted from squared differences.
SENSOR_FACTOR = 1.5
COLOUR_WEIGHT = 1.5
#: The same for the noise of whole frames, by level, the mean first: a mean of n squares exceeds its
#: expectation by this factor in one of a hundred comparisons, for n = 1, 3, 12, 48, and for two colours 2, 6,
#: 24.
FRAME_FACTORS = (6.6, 3.8, 2.2, 1.5)
FRAME_COLOUR_FACTORS = (4.6, 2.8, 1.8)
_LEVELS, _COLOUR_LEVELS = level_slices(CELLS), level_slices(COLOUR_CELLS)


def row_of(crop: Crop) -> Array:
    """Return the values (VALUES) of a crop that are remembered."""
    return np.concatenate([crop.light[_CENTRE], crop.colour, [crop.ground, crop.noise, crop.colour_noise]])


def object_distances(known: Array, found: Crop, noise: CropNoise) -> Array:
    """Return the distances in levels (n) of the crop of an object from known ones (n, VALUES)."""
    light, colour, ground, own, colour_own = _parts(known)
    light, colour, share = _without_ground(light, colour, own, colour_own, noise)
    of_found = np.full(len(found.light), found.noise), np.full(len(found.light), found.colour_noise)
    repeated = np.broadcast_to(found.colour, (len(found.light), COLOUR_VALUES))
    shifted, found_colour, _ = _without_ground(found.light, repeated, *of_found, noise)
    expected = SENSOR_FACTOR * noise.sensor * LIGHT_VALUES * (own + found.noise)
    # The same brightness relative to the frame is enough: an object may lie on other ground.
    moved = light + share * (ground - np.float32(found.ground))[:, None]
    total = np.minimum(_least_squares(light, shifted, expected), _least_squares(moved, shifted, expected))
    squares = np.square(colour - found_colour[_CENTRE]).sum(1)
    squares -= SENSOR_FACTOR * noise.colour_sensor * COLOUR_VALUES * (colour_own + found.colour_noise)
    squares -= COLOUR_TOLERANCE * (np.square(colour).sum(1) + np.square(found_colour[_CENTRE]).sum()) / 2
    found_distances: Array = np.sqrt(
        total / LIGHT_VALUES + COLOUR_WEIGHT * np.maximum(0, squares) / COLOUR_VALUES
    )
    return found_distances


def _least_squares(known: Array, shifted: Array, expected: Array) -> Array:
    """Return the least sum of squared differences over shifts and contrasts, for each known crop."""
    products = known @ shifted.T
    of_known, of_shifted = np.square(known).sum(1)[:, None], np.square(shifted).sum(1)[None]
    gain = np.clip(products / np.maximum(of_known, 1e-6), 1 / MAX_GAIN, MAX_GAIN)
    squares = of_shifted - 2 * gain * products + np.square(gain) * of_known
    squares -= EDGE_SHIFT * (_edges(known) + _edges(shifted[_CENTRE : _CENTRE + 1])) / 2 + expected[:, None]
    squares -= TOLERANCE * (of_shifted + of_known) / 2
    least: Array = np.maximum(0, squares.min(1))
    return least


def _edges(light: Array) -> Array:
    """Return the sum of squared differences between neighbouring cells (n, 1)."""
    cells = light.reshape(-1, CELLS, CELLS)
    rows, columns = (np.diff(cells, axis=axis).reshape(len(cells), -1) for axis in (1, 2))
    found: Array = np.einsum("ij,ij->i", rows, rows) + np.einsum("ij,ij->i", columns, columns)
    return found[:, None]


def _without_ground(
    light: Array, colour: Array, own: Array, colour_own: Array, noise: CropNoise
) -> tuple[Array, Array, Array]:
    """Return brightness and colour without what may be ground, and the remaining part of each cell.

    The values are multiplied by 1 - 1 / z ** 2, where z is their difference from the ground over its limit
    (H.-Y. Gao, Wavelet shrinkage denoising using the non-negative garrote, 1998).
    """
    excess = _excess(light.reshape(-1, CELLS, CELLS), noise.block_variances, noise.sensor * own)
    halves = colour.reshape(-1, 2, COLOUR_CELLS, COLOUR_CELLS)
    both = [
        _excess(halves[:, plane], noise.colour_variances, noise.colour_sensor * colour_own)
        for plane in (0, 1)
    ]
    of_colour = np.maximum(both[0], both[1])
    step = CELLS // COLOUR_CELLS
    excess = np.maximum(excess, of_colour.repeat(step, 1).repeat(step, 2))
    of_colour = np.maximum.reduce(quarters(excess))
    share, colour_share = (1 - 1 / np.maximum(1, part) for part in (excess, of_colour))
    share = share.reshape(len(light), -1)
    return light * share, (halves * colour_share[:, None]).reshape(len(light), -1), share


def _excess(cells: Array, variances: Array, sensor: Array) -> Array:
    """Return the largest squared difference from the ground over its limit, of a cell and its blocks."""
    found = np.zeros(cells.shape, np.float32)
    means, count = cells, 1
    for variance in variances.tolist():
        limit = LEAST_CONTRAST**2 + OBJECT_DEVIATIONS**2 * np.maximum(np.float32(variance), sensor / count**2)
        over = np.square(means) * (1 / limit.astype(np.float32))[:, None, None]
        np.maximum(found, over.repeat(count, 1).repeat(count, 2), out=found)
        means, count = np.add.reduce(quarters(means)) / 4, 2 * count
    return found


def frame_distances(known: Array, found: Crop, noise: CropNoise) -> Array:
    """Return the distances in levels (n) of a frame as a whole from known ones (n, VALUES)."""
    light, colour, _, own, colour_own = _parts(known)
    difference = transform((light - found.light[_CENTRE]).reshape(-1, CELLS, CELLS))
    sensor = noise.sensor * np.maximum(own, 0), noise.sensor * found.noise
    total = np.zeros(len(known), np.float32)
    for index, level in enumerate(_LEVELS):
        scene, count = noise.light[index], level.stop - level.start
        expected = count * (np.maximum(sensor[0], scene) + max(sensor[1], scene))
        total += np.maximum(0, np.square(difference[:, level]).sum(1) - FRAME_FACTORS[index] * expected)
    planes = transform((colour - found.colour).reshape(-1, 2, COLOUR_CELLS, COLOUR_CELLS))
    of_colour = np.zeros(len(known), np.float32)
    for index, level in enumerate(_COLOUR_LEVELS):
        scene, count = noise.colour[index], 2 * (level.stop - level.start)
        expected = count * (np.maximum(colour_own, scene) + max(found.colour_noise, scene))
        squares = np.square(planes[..., level]).sum((1, 2))
        of_colour += np.maximum(0, squares - FRAME_COLOUR_FACTORS[index] * expected)
    found_distances: Array = np.sqrt(total / LIGHT_VALUES + COLOUR_WEIGHT * of_colour / COLOUR_VALUES)
    return found_distances


def _parts(known: Array) -> tuple[Array, Array, Array, Array, Array]:
    ground, own, colour_own = known[:, -3:].T
    return known[:, :LIGHT_VALUES], known[:, LIGHT_VALUES:-3], ground, own, colour_own
