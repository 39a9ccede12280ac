"""Compares means over half an hour to six hours with the same time of day in the reference. Pure.

The limit of a signal is a prediction interval: Student's t at the false-alarm rate, times how far a mean of
that length was from what the other days (or, with less than two days, the whole reference) let expect. Slow
components widen it twice: by the variance of the means themselves, and by the fewer degrees of freedom that
correlated means are worth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamer.drift.blocks import Blocks, Floats, greatest, mean_square, quantile
from streamer.drift.day import DAY_S, SEASON_S, SLOTS, hour_of, hours_apart, slot_of, weekday_of
from streamer.drift.quantiles import student_t
from streamer.drift.units import BETWEEN_DAYS, ERRATIC, FLOORS, OF_BOXES, OF_OBJECTS, SKEWED

#: Lengths of the means in blocks: half an hour, an hour, two, and six hours.
LENGTHS = (6, 12, 24, 72)
#: Means of this length are many enough to tell their variance; longer ones are predicted from them, too.
BASE = 12
#: About as many independent comparisons of a signal with its limit are made in a day, all signals together.
TESTS_PER_DAY = 600
#: Margins on the limits: the more a signal depends on a few objects, the heavier its tail; likewise if it is
#: skewed.
MARGIN, BOX_MARGIN, ERRATIC_MARGIN, SKEWED_MARGIN = 1.2, 1.3, 1.5, 1.7
#: Without such a day in the reference, limits are this much wider.
UNKNOWN_DAY = 1.5
#: Hours around a time of day whose deviations make its limit.
REACH_H = 3.0
#: A limit is not more than so many deviations, or what ordinary days may have between them if that is more.
MOST_DEVIATIONS = 8.0
#: Evidence of a longer mean counts only if the last half hour is off to the same side by this share of it.
CONFIRMING_SHARE = 0.3
#: A mean counts with this share of the values that are typical.
MIN_COUNT_SHARE = 0.25
#: Half hours that a reference without a second day must have seen to know a whole day.
WHOLE_DAY_SLOTS = 46
#: Otherwise a limit is at least this share of what ordinary days may have between them.
PART_OF_DAY = 0.5
#: With so many days, weekdays may have expectations of their own; other weekdays count with this weight.
WEEKDAYS_FROM_DAYS, OTHER_WEEKDAY = 13, 0.1
#: They have them where that lowers the mean square of the deviations to this share.
WEEKDAYS_BELOW = 0.7


@dataclass(frozen=True, slots=True)
class Expectation:
    """Holds what to expect at each time: ``means`` (weekdays or 1, slots, signals), NaN where unknown."""

    means: Floats

    def at(self, unix_s: Floats) -> Floats:
        """Return what each signal is expected to be, (times, signals)."""
        if len(self.means) == 1:
            return np.asarray(self.means[0, slot_of(unix_s)])
        return np.asarray(self.means[weekday_of(unix_s), slot_of(unix_s)])


def middles(blocks: Blocks) -> Floats:
    """Return the middle of each block, unix seconds."""
    return blocks.ends - blocks.block_s / 2


def deviations(blocks: Blocks, expected: Floats, length: int, typical: Floats) -> Floats:
    """Return mean minus expectation of every run of ``length`` blocks, (runs, signals); NaN with few values.

    A mean of fewer values than is typical is noisier, so its deviation is reduced accordingly.
    """
    off, held = run_means(blocks, expected, length)
    few = np.sqrt(np.minimum(1.0, held / np.maximum(typical * length, 1e-9)))
    return np.where(held >= MIN_COUNT_SHARE * typical * length, off * few, np.nan)


def run_means(blocks: Blocks, expected: Floats, length: int) -> tuple[Floats, Floats]:
    """Return mean minus expectation of every run of blocks, and its number of values, both (runs, signals).

    The mean is NaN without a value.
    """
    if len(blocks) < length:
        return np.zeros((0, blocks.means.shape[1])), np.zeros((0, blocks.means.shape[1]))
    known = np.isfinite(expected) & (blocks.counts > 0)
    counts = np.where(known, blocks.counts, 0.0)
    held = sums(counts, length)
    total = sums(np.where(known, blocks.means - expected, 0.0) * counts, length)
    return np.where(held > 0, total / np.maximum(held, 1e-9), np.nan), held


def sums(values: Floats, length: int) -> Floats:
    """Return the sum of every run of ``length`` rows, (runs, columns)."""
    if len(values) < length:
        return np.zeros((0, values.shape[1]))
    total = np.vstack([np.zeros((1, values.shape[1])), values.cumsum(axis=0)])
    return np.asarray(total[length:] - total[:-length])


class Days:
    """Holds the sums of a reference by day and half hour, so that a day can be compared with the others."""

    def __init__(self, blocks: Blocks) -> None:
        """Sum up the blocks of a reference."""
        at = middles(blocks)
        self.slots, weekdays = slot_of(at), weekday_of(at)
        self.seasonal = len(blocks) * blocks.block_s >= SEASON_S
        #: Day of each block, counted from the first block, so that no day is a short one.
        self.day = np.asarray((at - at[0]) // DAY_S, np.intp)
        self.count = int(self.day[-1]) + 1
        self._weekday = np.array(
            [np.bincount(weekdays[self.day == d], minlength=7).argmax() for d in range(self.count)]
        )
        means = np.nan_to_num(blocks.means)
        shape = (self.count, SLOTS, means.shape[1])
        self._sums, self._counts = np.zeros(shape), np.zeros(shape)
        np.add.at(self._sums, (self.day, self.slots), means * blocks.counts)
        np.add.at(self._counts, (self.day, self.slots), blocks.counts)
        self._seen = self._counts.sum(axis=0) > 0
        #: Whether this is a part of one day, which says little about other days.
        self.part = not self.seasonal and bool(self._seen.any(axis=1).sum() < WHOLE_DAY_SLOTS)

    @property
    def independent_share(self) -> float:
        """Share of the deviations that are independent: each day is part of what the others expect."""
        return (self.count - 1) / self.count if self.seasonal else 1.0

    def expected(self, weekday: int | None = None, without: int | None = None) -> Floats:
        """Return what to expect at each half hour, (slots, signals), of a weekday or any, without a day."""
        weights = np.ones(self.count)
        if weekday is not None:
            weights[self._weekday != weekday] = OTHER_WEEKDAY
        if without is not None and self.seasonal:
            weights[without] = 0.0
        sums, counts = (np.tensordot(weights, each, 1) for each in (self._sums, self._counts))
        if self.seasonal:
            sums, counts = _blended(sums), _blended(counts)
        else:
            sums, counts = (np.broadcast_to(each.sum(axis=0), each.shape) for each in (sums, counts))
        return np.where(self._seen & (counts > 0), sums / np.maximum(counts, 1e-9), np.nan)

    def others(self, *, by_weekday: bool) -> Floats:
        """Return for each block what the other days let expect, (blocks, signals)."""
        found = np.empty((len(self.day), self._sums.shape[2]))
        for day in range(self.count):
            weekday = int(self._weekday[day]) if by_weekday else None
            own = self.day == day
            found[own] = self.expected(weekday, day)[self.slots[own]]
        return found


def _blended(values: Floats) -> Floats:
    """Blend neighbouring half hours with triangular weights, an hour and a half to either side."""
    shifts = ((-2, 1.0), (-1, 2.0), (0, 3.0), (1, 2.0), (2, 1.0))
    return np.asarray(sum(weight * np.roll(values, shift, axis=0) for shift, weight in shifts))


def expect(blocks: Blocks, days: Days, typical: Floats) -> tuple[Expectation, Floats]:
    """Return what to expect at each time, and of each block by the other days alone, (blocks, signals)."""
    others, means = days.others(by_weekday=False), days.expected()[None]
    if days.count >= WEEKDAYS_FROM_DAYS:
        by_weekday = days.others(by_weekday=True)
        usual, own = (mean_square(deviations(blocks, each, 24, typical)) for each in (others, by_weekday))
        better = own < WEEKDAYS_BELOW * usual
        others = np.where(better, by_weekday, others)
        means = np.where(better, np.stack([days.expected(weekday) for weekday in range(7)]), means)
    return Expectation(means), others


def learn_levels(
    blocks: Blocks, columns: Sequence[str], days: Days, others: Floats, typical: Floats, alpha: float
) -> dict[int, Floats]:
    """Return by length the limits of deviations, (slots, signals); inf: not judged.

    ``others`` is what the other days let expect of each block, (blocks, signals).
    """
    p, share = probability(alpha), days.independent_share
    base = Spread.of(deviations(blocks, others, BASE, typical), BASE, share, p, lost=not days.seasonal)
    limits = {}
    for length in LENGTHS:
        found = deviations(blocks, others, length, typical)
        if len(found) < 2 * length:
            continue
        spread = Spread.of(found, length, share, p, lost=not days.seasonal)
        factor = spread.factor
        if length > BASE and days.seasonal:
            factor = base.factor_of_longer(spread, length // BASE)
        centres = hour_of(blocks.ends[length - 1 :] - length * blocks.block_s / 2)
        limits[length] = _limits(
            found, centres, spread.rms, factor, columns, length, seasonal=days.seasonal, part=days.part
        )
    return limits


def probability(alpha: float) -> float:
    """Return the probability at which one limit may be reached; half of ``alpha`` is for levels."""
    return alpha / 2 / TESTS_PER_DAY


@dataclass(frozen=True, slots=True)
class Spread:
    """Holds, by signal, the root mean square of deviations and the factor that makes a limit of it."""

    rms: Floats
    factor: Floats
    #: Correlations of means that are 1, 2, … lengths apart, at the upper end of their uncertainty.
    correlations: list[Floats]

    @classmethod
    def of(cls, found: Floats, length: int, share: float, p: float, *, lost: bool) -> Spread:
        """Measure deviations of means of ``length`` blocks, (runs, signals).

        ``share`` of them are independent, and ``lost`` says whether their mean was taken from them.
        """
        rms = np.sqrt(mean_square(found))
        count = np.isfinite(found).sum(axis=0) / length
        margin = 0.5 / np.sqrt(np.maximum(count, 1))
        correlations = [_correlation(found, lag * length) + margin for lag in range(1, 72 // BASE)]
        first = np.clip(correlations[0], 0, 0.9)
        # Means that are correlated are worth fewer independent ones; a mean of them costs one degree.
        freedom = np.clip(count * share * (1 - first) / (1 + first) - lost, 1.0, 500)
        # Where the tail is heavier than a normal one, the limit is further out.
        tail = quantile(found, 0.99) / np.maximum(rms, 1e-12) / 2.576
        quantiles = np.array([student_t(p, round(float(each), 1)) for each in freedom])
        return cls(rms, np.maximum(1.0, np.nan_to_num(tail)) * quantiles, correlations)

    def factor_of_longer(self, longer: Spread, times: int) -> Floats:
        """Return the factor of means that are ``times`` as long: their own, or what these predict if less."""
        predicted = np.maximum(1.0, self._of_longer(times) / np.maximum(longer.rms, 1e-12))
        return np.minimum(longer.factor, self.factor * predicted)

    def _of_longer(self, times: int) -> Floats:
        """Return the root mean square of means that are ``times`` as long, from variance and correlations."""
        total = times + sum(
            2 * (times - lag) * np.clip(self.correlations[lag - 1], 0, 1) for lag in range(1, times)
        )
        return np.asarray(self.rms * np.sqrt(total) / times)


def _correlation(found: Floats, lag: int) -> Floats:
    if len(found) <= lag:
        return np.zeros(found.shape[1])
    first, second = found[:-lag], found[lag:]
    both = np.isfinite(first) & np.isfinite(second)
    first, second = np.where(both, first, 0), np.where(both, second, 0)
    norm = np.sqrt((first**2).sum(axis=0) * (second**2).sum(axis=0))
    return np.asarray((first * second).sum(axis=0) / np.maximum(norm, 1e-12))


def _limits(
    found: Floats,
    centres: Floats,
    rms: Floats,
    factor: Floats,
    columns: Sequence[str],
    length: int,
    *,
    seasonal: bool,
    part: bool,
) -> Floats:
    floors, between = (np.array([unit[name] for name in columns]) for unit in (FLOORS, BETWEEN_DAYS))
    limits = np.full((SLOTS, len(columns)), np.inf)
    for slot in range(SLOTS):
        near = found[hours_apart(centres, (slot + 0.5) * 24 / SLOTS) <= (REACH_H if seasonal else 12)]
        enough = np.isfinite(near).sum(axis=0) >= length / 2
        if not enough.any():
            continue
        local = np.maximum(np.sqrt(mean_square(near)), 0.7 * rms)
        most = np.maximum(between * (1 if seasonal else 2), MOST_DEVIATIONS * local)
        limit = np.maximum(np.minimum(factor * local, most), floors)
        limit = np.maximum(limit, 1.3 * greatest(near))
        if part:
            limit = np.maximum(limit, PART_OF_DAY * between)
        limits[slot] = np.where(enough, limit, np.inf)
    erratic, boxes, objects = (
        np.array([name in kind for name in columns]) for kind in (ERRATIC, OF_BOXES, OF_OBJECTS)
    )
    skewed = np.array([name in SKEWED for name in columns])
    usual = np.where(skewed, SKEWED_MARGIN, MARGIN)
    limits = limits * np.where(erratic, ERRATIC_MARGIN, np.where(boxes, BOX_MARGIN, usual))
    shortest = np.where(erratic, 72, np.where(boxes, 24, 6))
    limits[:, (shortest > length) | objects] = np.inf
    return limits
