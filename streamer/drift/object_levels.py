"""Compares means over objects with the same time of day in the reference: the more objects, the surer. Pure.

Half an hour of confidences, sizes and positions is a sample of the objects that passed, and its variance
falls with their number. Deviations are therefore scaled by a power of the number of boxes, which makes nights
with three objects and rush hours with three hundred alike. So all hours of a reference together tell the
limit, and it needs neither wide margins nor long means. `levels` does the same for all other signals.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streamer.drift.blocks import BLOCKS_PER_WINDOW, Blocks, Floats, aligned, greatest
from streamer.drift.levels import (
    BASE,
    CONFIRMING_SHARE,
    LENGTHS,
    MOST_DEVIATIONS,
    PART_OF_DAY,
    Days,
    Spread,
    probability,
    run_means,
    sums,
)
from streamer.drift.rows import NUMERIC
from streamer.drift.units import BETWEEN_DAYS, FLOORS, OF_OBJECTS, SKEWED

_N_BOXES = NUMERIC.index("n_boxes")
#: A mean of fewer boxes than this (of all rows), or than this share of the typical number, says nothing.
MIN_BOXES, MIN_BOXES_SHARE = 60.0, 0.03
#: More boxes than this multiple of the typical number make a mean no more certain.
MOST_BOXES = 3.0
#: Variance falls with at least this power of the number of boxes, and at most with the number itself.
LEAST_EXPONENT = 0.3
#: The exponent is estimated where the fewer third of the boxes differs from the more third by this factor.
MIN_CONTRAST = 1.3
#: Margins on limits; more for signals that one large object or one of a rare class decides.
MARGIN, SKEWED_MARGIN = 1.05, 1.4
#: Limits are at least this multiple of the greatest deviation in the reference.
GREATEST_MARGIN = 1.2
#: Positions are judged together, too. Two independent normal deviations reach this multiple of a limit
#: together as rarely as one of them reaches the limit.
POSITION, POSITION_FACTOR = ("cx_med", "cy_med"), 1.08
#: Means over which positions are judged together.
POSITION_LENGTHS = (6, 12, 24)


@dataclass(frozen=True, slots=True)
class ObjectLevels:
    """Holds the limits of signals that are means over objects, for the typical number of boxes."""

    #: Power of the number of boxes with which the variance falls.
    exponent: float
    #: By length in blocks, the typical number of boxes.
    typical: Mapping[int, float]
    #: By length in blocks, the limits, (members of :func:`places`,); inf: not judged.
    limits: Mapping[int, Floats]

    @classmethod
    def learn(
        cls, blocks: Blocks, columns: Sequence[str], days: Days, others: Floats, alpha: float
    ) -> ObjectLevels:
        """Learn from the blocks of a reference and what other days let expect of each, (blocks, signals)."""
        members = places(columns)
        found: dict[int, tuple[Floats, Floats]] = {}
        typical: dict[int, float] = {}
        for length in LENGTHS:
            boxes = _boxes(blocks, length, members)
            if len(boxes) < 2 * length or not boxes.any():
                continue
            typical[length] = float(np.median(boxes[boxes > 0]))
            scale = _scale(boxes, typical[length])
            off = run_means(blocks, others, length)[0][:, members]
            found[length] = np.where(np.isfinite(scale)[:, None], off, np.nan), scale
        exponent = _exponent([found[length] for length in found if length <= BASE])
        p, share, lost = probability(alpha), days.independent_share, not days.seasonal
        spreads = {
            length: Spread.of(off * scale[:, None] ** (exponent / 2), length, share, p, lost=lost)
            for length, (off, scale) in found.items()
        }
        between = np.array([BETWEEN_DAYS[columns[place]] for place in members])
        margins = np.array([SKEWED_MARGIN if columns[place] in SKEWED else MARGIN for place in members])
        limits = {}
        for length, spread in spreads.items():
            scaled = found[length][0] * found[length][1][:, None] ** (exponent / 2)
            factor = spread.factor
            if length > BASE and days.seasonal:
                factor = spreads[BASE].factor_of_longer(spread, length // BASE)
            most = np.maximum(between * (1 if days.seasonal else 2), MOST_DEVIATIONS * spread.rms)
            limit = (
                np.maximum(np.minimum(factor * spread.rms, most), GREATEST_MARGIN * greatest(scaled))
                * margins
            )
            if days.part:
                limit = np.maximum(limit, PART_OF_DAY * between)
            limits[length] = np.where(np.isfinite(scaled).sum(axis=0) >= length / 2, limit, np.inf)
        return cls(exponent, typical, limits)

    def ratios(
        self, blocks: Blocks, expected: Floats, columns: Sequence[str], count: int
    ) -> Iterator[tuple[int, Floats]]:
        """Yield for each length how far means are off at each of the last ``count`` ends, (count, signals).

        This is a multiple of the limit. ``expected`` is (blocks, signals). The last half hour must agree.
        """
        members = places(columns)
        floors = np.array([FLOORS[columns[place]] for place in members])
        pair = [members.tolist().index(columns.index(name)) for name in POSITION]
        latest = self._off(blocks, expected, BLOCKS_PER_WINDOW, count)[:, members]
        for length, limits in self.limits.items():
            boxes = aligned(_boxes(blocks.last(length + count - 1), length, members)[:, None], count)
            scale = _scale(boxes[:, 0], self.typical[length])[:, None]
            off = self._off(blocks, expected, length, count)[:, members]
            single = np.abs(off) / np.maximum(limits / scale ** (self.exponent / 2), floors)
            agrees = np.sign(off) * latest >= CONFIRMING_SHARE * np.abs(off)
            ratios = np.zeros((count, len(columns)))
            ratios[:, members] = np.nan_to_num(np.where(agrees, single, 0.0))
            if length in POSITION_LENGTHS:
                both = np.nan_to_num(single[:, pair])
                joint = np.where(agrees[:, pair].any(axis=1), np.hypot(*both.T) / POSITION_FACTOR, 0.0)
                most = members[np.array(pair)[np.argmax(both, axis=1)]]
                rows = np.arange(count)
                ratios[rows, most] = np.maximum(ratios[rows, most], joint)
            yield length, ratios

    @staticmethod
    def _off(blocks: Blocks, expected: Floats, length: int, count: int) -> Floats:
        part = blocks.last(length + count - 1)
        return aligned(run_means(part, expected[-len(part) :], length)[0], count)

    def window_limits(self, boxes: float, columns: Sequence[str]) -> Floats:
        """Return the limits of half an hour with so many boxes, (signals,); inf: not judged."""
        found = np.full(len(columns), np.inf)
        if BLOCKS_PER_WINDOW in self.limits:
            scale = np.clip(boxes / self.typical[BLOCKS_PER_WINDOW], MIN_BOXES_SHARE, 1.0)
            members = places(columns)
            floors = np.array([FLOORS[columns[place]] for place in members])
            limits = self.limits[BLOCKS_PER_WINDOW] / scale ** (self.exponent / 2)
            found[members] = np.maximum(limits, floors)
        return found


def places(columns: Sequence[str]) -> npt.NDArray[np.intp]:
    """Return the places of the signals that are means over objects."""
    return np.array([place for place, name in enumerate(columns) if name in OF_OBJECTS], np.intp)


def _boxes(blocks: Blocks, length: int, members: npt.NDArray[np.intp]) -> Floats:
    """Return the number of boxes in each run of ``length`` blocks, (runs,).

    Where a reference does not contain it, it is the number of rows that have a value of ``members``.
    """
    boxes = np.nan_to_num(blocks.means[:, _N_BOXES] * blocks.counts[:, _N_BOXES])
    boxes = np.maximum(boxes, blocks.counts[:, members].max(axis=1, initial=0.0))
    return sums(boxes[:, None], length)[:, 0]


def _scale(boxes: Floats, typical: float) -> Floats:
    """Return the numbers of boxes as multiples of the typical one, (runs,); NaN if they are too few."""
    enough = boxes >= max(MIN_BOXES, MIN_BOXES_SHARE * typical)
    return np.where(enough, np.minimum(boxes / typical, MOST_BOXES), np.nan)


def _exponent(found: Sequence[tuple[Floats, Floats]]) -> float:
    """Return the power of the number of boxes with which the variance falls: the median over all signals.

    That of one signal follows from the variances in the third of the time with the fewest boxes and in the
    one with the most.
    """
    exponents = []
    for off, scale in found:
        for values in off.T:
            known = np.isfinite(values)
            if known.sum() < BASE:
                continue
            low, high = np.quantile(scale[known], [1 / 3, 2 / 3])
            few, many = known & (scale <= low), known & (scale >= high)
            contrast = np.mean(1 / scale[few]) / np.mean(1 / scale[many])
            variances = np.mean(values[few] ** 2), np.mean(values[many] ** 2)
            if contrast >= MIN_CONTRAST and min(variances) > 0:
                exponents.append(float(np.log(variances[0] / variances[1]) / np.log(contrast)))
    return float(np.clip(np.median(exponents), LEAST_EXPONENT, 1.0)) if exponents else LEAST_EXPONENT
