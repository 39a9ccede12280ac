"""Finds sudden changes of the image: the last quarter or half hour against the one before it. Pure.

A change-point statistic needs no other day to compare with. How far two neighbouring half hours differ is
known from dozens of pairs of them after one day, whereas one day says nothing about the weather of the next.
Only the image is watched: whether a few objects pass in half an hour is chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from streamer.drift.blocks import Blocks, Floats, aligned, quantile
from streamer.drift.day import SLOTS, hour_of, hours_apart, slot_of
from streamer.drift.quantiles import fisher_f, student_t
from streamer.drift.units import FLOORS, OF_BOXES, SKEWED, TOPICS
from streamer.drift.unknown_days import greatest_of_near_times

#: Blocks on either side of a change.
SCALES = (3, 6)
#: Blocks between the two sides: the one in which the change lies.
GAP = 1
#: Share of the blocks on each side that must have values.
MIN_SHARE = 2 / 3
#: About as many independent comparisons of all signals are made in a day.
TESTS_PER_DAY = 1200
#: Margin on the limits, since neither tails nor correlations are those of the normal distribution.
MARGIN = 1.4
#: Further margin for skewed signals.
SKEWED_MARGIN = 1.4
#: Hours around a time of day whose differences make its limit; and those in which what happened may happen
#: again.
REACH_H, EVENT_REACH_H = 2.0, 1.75
#: A limit needs this many differences around its time of day.
MIN_DIFFERENCES = 12
#: Correlations are drawn towards 0 by this share, and differences over so many deviations count as that many.
SHRINKAGE, CLIP = 0.15, 3.0

Kind = Literal["sudden", "gradual"]


def _medians(values: Floats, size: int) -> Floats:
    """Return the median of each signal over every run of ``size`` blocks, NaN where too few have values."""
    runs = np.sort(sliding_window_view(values, size, axis=0), axis=-1)  # NaN come last
    found = np.isfinite(runs).sum(axis=-1)
    low, high = np.maximum(found - 1, 0) // 2, np.minimum(found // 2, size - 1)
    middle = [np.take_along_axis(runs, place[..., None], -1)[..., 0] for place in (low, high)]
    return np.where(found >= math.ceil(MIN_SHARE * size), (middle[0] + middle[1]) / 2, np.nan)


def differences(blocks: Blocks, size: int) -> Floats:
    """Return the median after minus the median before each possible change, (runs, signals), oldest first.

    The last run ends with the last block. A single odd block moves no median.
    """
    if len(blocks) < 2 * size + GAP:
        return np.zeros((0, blocks.means.shape[1]))
    medians = _medians(blocks.means, size)
    return np.asarray(medians[size + GAP :] - medians[: -size - GAP])


@dataclass(frozen=True, slots=True)
class StepLimits:
    """Holds the limits of sudden changes over one size. Arrays are (slots, signals) unless stated.

    ``rise`` and ``fall`` are inf where a signal is not judged. ``topics`` are the limits of the squared joint
    statistics, (slots, topics), and ``inverses`` the inverse correlations of each topic's signals.
    """

    size: int
    rise: Floats
    fall: Floats
    deviation: Floats
    topics: Floats
    inverses: tuple[Floats, ...]

    def ratios(self, blocks: Blocks, columns: Sequence[str], unknown_day: npt.NDArray[np.bool_]) -> Floats:
        """Return how far each signal has just changed at each of the last ends, (ends, signals).

        This is a multiple of its limit. A joint change counts for the signal of the topic that has changed
        most. ``unknown_day``, (ends,), says where what is known to happen at other times nearby may happen.
        """
        count = len(unknown_day)
        change = aligned(differences(blocks.last(2 * self.size + GAP + count - 1), self.size), count)
        slots = slot_of(blocks.ends[-count:] - self.size * blocks.block_s)
        by_slot = self.rise, self.fall, self.deviation, self.topics
        rise, fall, deviation, topics = (limits[slots] for limits in by_slot)
        for place in np.flatnonzero(unknown_day):
            rise[place], fall[place], deviation[place], topics[place] = (
                greatest_of_near_times(limits, slots[place]) for limits in by_slot
            )
        ratios = np.nan_to_num(np.maximum(change / rise, -change / fall))
        scaled = change / deviation
        for topic, (members, inverse) in enumerate(zip(_members(columns), self.inverses, strict=True)):
            part = scaled[:, members]
            rows = np.flatnonzero(np.isfinite(part).all(axis=1))
            part = part[rows]
            squares = np.einsum("ni,ij,nj->n", part, inverse, part)
            joint = np.sqrt(squares / topics[rows, topic])
            most = members[np.argmax(np.abs(part), axis=1)]
            ratios[rows, most] = np.maximum(ratios[rows, most], joint)
        return np.asarray(ratios)


def learn_steps(blocks: Blocks, columns: Sequence[str], alpha: float) -> list[StepLimits]:
    """Return the limits of each size; empty if the reference is too short."""
    return [limits for size in SCALES if (limits := _learn(blocks, columns, alpha / 2, size)) is not None]


def _learn(blocks: Blocks, columns: Sequence[str], alpha: float, size: int) -> StepLimits | None:
    found = differences(blocks, size)
    if len(found) < 2 * MIN_DIFFERENCES:
        return None
    hours = hour_of(blocks.ends[len(blocks) - len(found) :] - size * blocks.block_s)
    floors = np.array([FLOORS[name] for name in columns])
    judged = np.array([name not in OF_BOXES for name in columns])
    margins = np.array([SKEWED_MARGIN if name in SKEWED else 1.0 for name in columns])
    p = alpha / TESTS_PER_DAY
    independent = np.isfinite(found).sum(axis=0) / (2 * size)
    quantiles = np.array([student_t(p, min(1000, max(2, int(n) - 1))) for n in independent])
    overall, margin = _deviation(found), _event_margin(blocks)
    rise, fall = np.full((2, SLOTS, len(columns)), np.inf)
    deviation = np.full((SLOTS, len(columns)), np.nan)
    for slot in range(SLOTS):
        apart = hours_apart(hours, (slot + 0.5) * 24 / SLOTS)
        near, events = found[apart <= REACH_H], found[apart <= EVENT_REACH_H]
        enough = np.isfinite(near).sum(axis=0) >= MIN_DIFFERENCES
        if not enough.any():
            continue
        local = np.where(enough, _deviation(near), np.nan)
        deviation[slot] = np.maximum(np.maximum(local, 0.6 * overall), floors / 5)
        limit = np.maximum(MARGIN * margins * quantiles * deviation[slot], floors)
        for sides, sign in ((rise, 1), (fall, -1)):
            known = np.where(np.isfinite(events), sign * events, 0).max(axis=0, initial=0)
            sides[slot] = np.where(enough & judged, np.maximum(limit, margin * known), np.inf)
    topics, inverses = _learn_topics(found, hours, deviation, columns, p, margin, size)
    return StepLimits(size, rise, fall, deviation, topics, inverses)


def _event_margin(blocks: Blocks) -> float:
    """Return how much larger than in the reference a known event, such as dusk, may be the next time."""
    return 1.25 + 1.5 / math.sqrt(max(1.0, len(blocks) * blocks.block_s / 86_400))


def _deviation(found: Floats) -> Floats:
    """Return standard deviations from the 85 % quantile, which neither still nights nor one dusk decide."""
    return quantile(found, 0.85) / 1.44


def _learn_topics(
    found: Floats,
    hours: Floats,
    deviation: Floats,
    columns: Sequence[str],
    p: float,
    margin: float,
    size: int,
) -> tuple[Floats, tuple[Floats, ...]]:
    """Return the limits of the joint statistics (Hotelling's T squared) and the inverse correlations."""
    members = _members(columns)
    limits, inverses = np.full((SLOTS, len(members)), np.inf), []
    scaled = found / deviation[np.asarray(hours * SLOTS // 24, np.intp)]
    for topic, places in enumerate(members):
        part = scaled[:, places]
        whole = np.clip(part[np.isfinite(part).all(axis=1)], -CLIP, CLIP)
        count, width = len(whole) / (2 * size), len(places)
        inverses.append(np.eye(width))
        if count < width + 3:
            continue
        covariance = whole.T @ whole / len(whole)
        scale = np.sqrt(np.maximum(np.diag(covariance), 0.25))
        correlation = (1 - SHRINKAGE) * covariance / np.outer(scale, scale) + SHRINKAGE * np.eye(width)
        inverses[-1] = np.linalg.inv(correlation)
        bound = width * (count - 1) / (count - width) * fisher_f(p, width, min(1000.0, count - width))
        joint = np.einsum("ni,ij,nj->n", part, inverses[-1], part)
        for slot in range(SLOTS):
            near = joint[hours_apart(hours, (slot + 0.5) * 24 / SLOTS) <= EVENT_REACH_H]
            near = near[np.isfinite(near)]
            if len(near) >= MIN_DIFFERENCES:
                limits[slot, topic] = max(MARGIN**2 * bound, margin**2 * near.max())
    return limits, tuple(inverses)


def _members(columns: Sequence[str]) -> list[npt.NDArray[np.intp]]:
    return [
        np.array([place for place, name in enumerate(columns) if name in topic], np.intp)
        for topic in TOPICS.values()
    ]


def estimate_change(values: Floats) -> tuple[Kind, int] | None:
    """Return whether a series of block means stepped or drifted, and the block in which that began.

    Compares the best fit of two levels with the best fit of a level and a line that leaves it. None with
    fewer than 8 values.
    """
    places = np.flatnonzero(np.isfinite(values))
    if len(places) < 8:
        return None
    known = values[places]
    steps, ramps = [], []
    for split in range(2, len(known) - 1):
        early, late = known[:split], known[split:]
        steps.append(float(((early - early.mean()) ** 2).sum() + ((late - late.mean()) ** 2).sum()))
        line = np.maximum(0.0, np.arange(len(known)) - split + 1.0)
        design = np.column_stack([np.ones(len(known)), line])
        ramps.append(float(((known - design @ np.linalg.lstsq(design, known)[0]) ** 2).sum()))
    kind: Kind = "sudden" if min(steps) <= min(ramps) else "gradual"
    best = int(np.argmin(steps if kind == "sudden" else ramps)) + 2
    return kind, int(places[best])
