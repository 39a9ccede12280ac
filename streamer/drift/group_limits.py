"""Holds what a group's reference allows, and judges the present by it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamer.drift.blocks import BLOCKS_PER_WINDOW, Blocks, Floats, Signals, aligned
from streamer.drift.change_points import GAP, Kind, StepLimits, estimate_change, learn_steps
from streamer.drift.day import Seen, slot_of
from streamer.drift.levels import (
    CONFIRMING_SHARE,
    LENGTHS,
    UNKNOWN_DAY,
    Days,
    Expectation,
    deviations,
    expect,
    learn_levels,
    middles,
)
from streamer.drift.object_levels import ObjectLevels
from streamer.drift.rows import CLASSES, NUMERIC, Table
from streamer.drift.unknown_days import reach_of_any_time, within_any_time

#: Blocks of a group that are kept: the longest mean, and some before it to find the beginning of a change.
KEPT_BLOCKS = 84
#: Blocks in which the beginning of a change is sought: four hours.
SOUGHT_BLOCKS = 48
#: By how much the limit of a window is wider than that of a longer mean, beyond what its length explains.
WINDOW_MARGIN = 1.5


@dataclass(slots=True)
class Evidence:
    """Says how far a column is from what is expected, as a multiple of its limit, and how it was measured."""

    ratio: float
    #: `0.5 h`, `1 h`, `2 h`, `6 h`: a mean over this time; `step`: a sudden change.
    basis: str
    signal: int


@dataclass(frozen=True, slots=True)
class Limits:
    """Holds the limits of one group."""

    signals: Signals
    block_s: float
    #: Typical number of values in a block, (signals,).
    typical: Floats
    expectation: Expectation
    #: By length in blocks, (slots, signals).
    levels: Mapping[int, Floats]
    objects: ObjectLevels
    steps: Sequence[StepLimits]
    seen: Seen

    @classmethod
    def learn(cls, table: Table, block_s: float, alpha: float) -> Limits:
        """Learn from the rows of a reference, all of one model."""
        signals = Signals.of(table.categories[CLASSES])
        blocks = Blocks.of_table(table, signals, block_s)
        return cls.of_blocks(signals, blocks, Seen.of(table.at), alpha)

    @classmethod
    def of_blocks(cls, signals: Signals, blocks: Blocks, seen: Seen, alpha: float) -> Limits:
        """Learn from the blocks of a reference."""
        columns, days, typical = signals.columns, Days(blocks), typical_counts(blocks)
        expectation, others = expect(blocks, days, typical)
        levels = learn_levels(blocks, columns, days, others, typical, alpha)
        objects = ObjectLevels.learn(blocks, columns, days, others, alpha)
        steps = learn_steps(blocks, columns, alpha)
        return cls(signals, blocks.block_s, typical, expectation, levels, objects, steps, seen)

    def judge(self, blocks: Blocks, *, steps: bool) -> dict[str, Evidence]:
        """Return the strongest evidence of change by column, from the last blocks of a group.

        ``steps`` is False while a sudden change would be the end of an episode.
        """
        columns = self.signals.columns
        found: dict[str, Evidence] = {}
        blocks = blocks.last(KEPT_BLOCKS)
        for basis, ratios in self.ratios(blocks, 1, steps=steps):
            for place in np.flatnonzero(ratios[-1] > 0):
                ratio, name = float(ratios[-1, place]), columns[place]
                if name not in found or found[name].ratio < ratio:
                    found[name] = Evidence(ratio, basis, int(place))
        return found

    def ratios(self, blocks: Blocks, count: int, *, steps: bool) -> Iterator[tuple[str, Floats]]:
        """Yield, by basis, how far signals are off at the end of each of the last ``count`` blocks.

        This is a multiple of their limits, (count, signals), 0 where nothing can be said. ``steps`` says
        whether to look for sudden changes.
        """
        count = min(count, len(blocks))
        columns, ends = self.signals.columns, blocks.ends[-count:]
        known_days = self.seen.know_days(ends - 1)
        wider = np.where(known_days, 1.0, UNKNOWN_DAY)[:, None]
        expected = self.expectation.at(middles(blocks))
        unseen = ~self.seen.know_days(middles(blocks))
        if unseen.any():
            nearest = within_any_time(self.expectation.means, blocks.means)
            # What is not known at this time of day stays unknown.
            expected = np.where(unseen[:, None] & np.isfinite(expected), nearest, expected)
        latest = self._off(blocks, expected, BLOCKS_PER_WINDOW, count)
        for length, limits in self.levels.items():
            off = self._off(blocks, expected, length, count)
            slots = slot_of(ends - length * blocks.block_s / 2)
            agrees = np.sign(off) * latest >= CONFIRMING_SHARE * np.abs(off)
            ratios = np.nan_to_num(np.where(agrees, np.abs(off) / limits[slots], 0.0))
            yield self._basis(length), ratios / wider
        for length, ratios in self.objects.ratios(blocks, expected, columns, count):
            yield self._basis(length), ratios / wider
        for step in self.steps if steps else ():
            begins = ends - (2 * step.size + GAP) * blocks.block_s
            known = [self.seen.covers(*span) for span in zip(begins.tolist(), ends.tolist(), strict=True)]
            if any(known):
                yield "step", np.where(known, step.ratios(blocks, columns, ~known_days).T, 0.0).T / wider

    def _basis(self, length: int) -> str:
        return f"{length * self.block_s / 3600:.3g} h"

    def _off(self, blocks: Blocks, expected: Floats, length: int, count: int) -> Floats:
        """Return how far means of this length are off at the last ``count`` ends, (count, signals)."""
        part = blocks.last(length + count - 1)
        return aligned(deviations(part, expected[-len(part) :], length, self.typical), count)

    def beginning(self, blocks: Blocks, signal: int) -> tuple[Kind, float] | None:
        """Return how a signal has changed, and since when (unix seconds); None if that cannot be told."""
        blocks = blocks.last(SOUGHT_BLOCKS)
        expected = self.expectation.at(middles(blocks))[:, signal]
        found = estimate_change(blocks.means[:, signal] - expected)
        return (found[0], float(blocks.ends[found[1]] - blocks.block_s)) if found is not None else None

    def window_limits(self, unix_s: float) -> Floats:
        """Return for each signal the limit of a window's mean around that time, (signals,); inf: not judged.

        A signal that is judged over longer means alone has the limit of the shortest of them, widened as the
        noise of the shorter mean demands.
        """
        slot = slot_of(np.array([unix_s]))[0]
        limits = np.full(len(self.signals), np.inf)
        for length in reversed(LENGTHS):
            if length in self.levels:
                factor = 1.0 if length == BLOCKS_PER_WINDOW else WINDOW_MARGIN
                wider = self.levels[length][slot] * factor * np.sqrt(length / BLOCKS_PER_WINDOW)
                limits = np.where(np.isfinite(wider), wider, limits)
        boxes, at = NUMERIC.index("n_boxes"), np.array([unix_s])
        expected = float(np.nan_to_num(self.expectation.at(at)[0, boxes])) * self.typical[boxes]
        of_objects = self.objects.window_limits(expected * BLOCKS_PER_WINDOW, self.signals.columns)
        limits = np.asarray(np.minimum(limits, of_objects * WINDOW_MARGIN), np.float64)
        if self.seen.knows_day(unix_s):
            return limits
        return limits * UNKNOWN_DAY + reach_of_any_time(self.expectation.means, slot)

    def numeric_window_limits(self, unix_s: float) -> dict[str, float]:
        """Return the same by numeric column."""
        return dict(zip(NUMERIC, self.window_limits(unix_s)[: len(NUMERIC)].tolist(), strict=True))


def typical_counts(blocks: Blocks) -> Floats:
    """Return the median number of values in the blocks that have some, (signals,)."""
    held = np.where(blocks.counts > 0, blocks.counts, np.nan)
    some = np.isfinite(held).any(axis=0)
    held[:, ~some] = 0.0
    return np.asarray(np.nanmedian(held, axis=0))
