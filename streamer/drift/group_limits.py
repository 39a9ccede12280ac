"""Holds what a group's reference allows, and judges the present by it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streamer.drift.blocks import BLOCKS_PER_WINDOW, Blocks, Floats, Signals
from streamer.drift.change_points import Kind, StepLimits, estimate_change, learn_steps
from streamer.drift.day import Seen, slot_of
from streamer.drift.levels import LENGTHS, UNKNOWN_DAY, Expectation, deviations, learn_levels, middles
from streamer.drift.rows import CLASSES, NUMERIC, Table

#: Blocks of a group that are kept: the longest mean, and some before it to find the beginning of a change.
KEPT_BLOCKS = 84
#: Evidence of a longer mean counts only if the last half hour is off to the same side by this share of it.
CONFIRMING_SHARE = 0.3
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
    steps: Sequence[StepLimits]
    seen: Seen

    @classmethod
    def learn(cls, table: Table, block_s: float, alpha: float) -> Limits:
        """Learn from the rows of a reference, all of one model."""
        signals = Signals.of(table.categories[CLASSES])
        blocks = Blocks.of_table(table, signals, block_s)
        typical = typical_counts(blocks)
        expectation, levels = learn_levels(blocks, signals.columns, typical, alpha)
        steps = learn_steps(blocks, signals.columns, alpha)
        return cls(signals, block_s, typical, expectation, levels, steps, Seen.of(table.at))

    def judge(self, blocks: Blocks, *, steps: bool) -> dict[str, Evidence]:
        """Return the strongest evidence of change by column, from the last blocks of a group.

        ``steps`` is False while a sudden change would be the end of an episode.
        """
        columns = self.signals.columns
        found: dict[str, Evidence] = {}
        wider = 1.0 if self.seen.knows_day(float(blocks.ends[-1]) - 1) else UNKNOWN_DAY

        def add(ratios: Floats, basis: str) -> None:
            for place in np.flatnonzero(ratios > 0):
                ratio, name = float(ratios[place]) / wider, columns[place]
                if name not in found or found[name].ratio < ratio:
                    found[name] = Evidence(ratio, basis, int(place))

        blocks = blocks.last(KEPT_BLOCKS)
        expected = self.expectation.at(middles(blocks))
        latest = self._latest(blocks, expected, BLOCKS_PER_WINDOW)
        for length, limits in self.levels.items():
            off = self._latest(blocks, expected, length)
            middle = blocks.ends[-1:] - length * blocks.block_s / 2
            agrees = np.sign(off) * latest >= CONFIRMING_SHARE * np.abs(off)
            ratios = np.where(agrees, np.abs(off) / limits[slot_of(middle)[0]], 0.0)
            add(np.nan_to_num(ratios), f"{length * blocks.block_s / 3600:.3g} h")
        for step in self.steps if steps else ():
            ends = blocks.ends[-1], blocks.ends[-1] - (2 * step.size + 1) * blocks.block_s
            if self.seen.covers(ends[1], ends[0]):
                add(step.ratios(blocks, columns), "step")
        return found

    def _latest(self, blocks: Blocks, expected: Floats, length: int) -> Floats:
        if len(blocks) < length:
            return np.full(len(self.signals), np.nan)
        part = blocks.last(length)
        return np.asarray(deviations(part, expected[-length:], length, self.typical)[-1])

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
        return limits if self.seen.knows_day(unix_s) else limits * UNKNOWN_DAY

    def numeric_window_limits(self, unix_s: float) -> dict[str, float]:
        """Return the same by numeric column."""
        return dict(zip(NUMERIC, self.window_limits(unix_s)[: len(NUMERIC)].tolist(), strict=True))


def typical_counts(blocks: Blocks) -> Floats:
    """Return the median number of values in the blocks that have some, (signals,)."""
    held = np.where(blocks.counts > 0, blocks.counts, np.nan)
    some = np.isfinite(held).any(axis=0)
    held[:, ~some] = 0.0
    return np.asarray(np.nanmedian(held, axis=0))
