"""Compares the windows of all groups with the reference, and tracks their episodes.

The builtin engine scores each window here at once. When a score comes near a threshold, and at least once an
hour for every group, ``ask`` of the check is set: the caller then lets Evidently score the window, too,
before it calls ``settle()``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from streamer.config.settings import Settings
from streamer.drift.blocks import Blocks
from streamer.drift.change_points import GAP, SCALES
from streamer.drift.episode import Episode, Onset
from streamer.drift.episode_store import StoredGroup
from streamer.drift.group_limits import KEPT_BLOCKS, Limits
from streamer.drift.recent_rows import RecentRows, Window
from streamer.drift.reference import MIN_ROWS, ColumnScore, GroupReference, Reference, ReferenceScorer
from streamer.drift.rows import Row, Table
from streamer.drift.severity import effect_on_detections

#: Most groups that are watched; a further one replaces the group that was silent for longest.
MAX_GROUPS = 64
#: Evidently scores a check, too, if its greatest ratio of score to threshold is at least this.
RESCORE_FROM = 0.8
#: Evidently scores a check of every group at least once in this many seconds.
ASK_EVERY_S = 3600.0


@dataclass(frozen=True, slots=True)
class DriftConfig:
    """Says how often rows are taken and windows are scored. Times are in seconds."""

    interval_s: float = 5.0
    window_s: float = 1800.0
    step_s: float = 600.0
    #: False episodes of a group per day that the limits of a reference allow, over all columns.
    alpha: float = 0.01
    #: Samples kept for one episode.
    samples: int = 20
    #: Days that a rolling reference may hold; 0: the reference stays as it was made.
    rolling_days: int = 0

    @classmethod
    def of(cls, settings: Settings) -> DriftConfig:
        """Return the configuration in the settings."""
        return cls(
            interval_s=settings.drift_sample_interval_s,
            window_s=settings.drift_window_s,
            step_s=settings.drift_step_s,
            alpha=settings.drift_alpha,
            samples=settings.drift_samples,
            rolling_days=settings.drift_rolling_days,
        )


@dataclass(slots=True)
class Check:
    """Holds one window of one group and its scores."""

    group: str
    window: Window
    #: `no_reference`, `insufficient_data`, `not_seen` (the reference does not know this time of day), or
    #: `scored`.
    outcome: str
    columns: list[ColumnScore] = field(default_factory=list)
    #: Whether the window has too few rows of the reference's model.
    stale: bool = False
    #: What the window was scored with; None when it was not scored.
    scorer: ReferenceScorer | None = None
    #: Whether Evidently shall score the window, too.
    ask: bool = False
    #: How much the detections have changed; from 1 on, it is severe.
    effect: float = 0.0
    #: How and when the column that moved most began to change; None if that cannot be told.
    onset: Onset | None = None
    engine: Literal["evidently", "builtin"] = "builtin"

    @property
    def ratio(self) -> float:
        """Greatest ratio of score to threshold."""
        return max((column.ratio for column in self.columns), default=0.0)


@dataclass(slots=True)
class Group:
    """Holds the state of one group."""

    recent: RecentRows
    episode: Episode = field(default_factory=Episode)
    #: The last settled check; None before the first.
    check: Check | None = None
    #: End of the last window that was passed to Evidently.
    asked_at: float = 0.0
    #: Episodes so far, and samples taken for the present one.
    episodes: int = 0
    samples: int = 0
    #: The last blocks, without the present one; None before the first and without limits.
    blocks: Blocks | None = None
    #: End of the last episode; a sudden change before it is the end of that episode.
    ended_at: float = 0.0


class Monitor:
    """Checks the windows of all groups, and tracks their episodes of drift.

    Call ``add`` with rows, and ``settle`` with the checks that it returns, in order.
    """

    def __init__(self, config: DriftConfig, mixed: Callable[[str], bool] = lambda _group: False) -> None:
        """Start without groups; ``mixed`` returns whether many short-lived streams share a group."""
        self.config = config
        self._mixed = mixed
        #: None without a reference.
        self._reference: Reference | None = None
        self.groups: OrderedDict[str, Group] = OrderedDict()
        #: Episodes of an earlier process, of groups that have had no row yet.
        self._remembered: dict[str, StoredGroup] = {}
        #: Time of the next checks, unix seconds; 0 before the first row.
        self.next_check = 0.0
        #: End of the windows checked last; 0 before the first check.
        self.last_check = 0.0

    @property
    def reference(self) -> Reference | None:
        """The reference that windows are scored against."""
        return self._reference

    def set_reference(self, reference: Reference | None) -> None:
        """Score against another reference from now on; all windows and episodes start again."""
        self._reference = reference
        self._remembered = {}
        for group in self.groups.values():
            group.recent.clear()
            group.episode = Episode()
            group.check = group.blocks = None

    def extend_reference(self, reference: Reference) -> None:
        """Score against the same reference with other days from now on; windows and episodes go on."""
        for name, group in self.groups.items():
            old, found = self._limits(name), reference.of(name)
            new = found.limits if found is not None else None
            if group.blocks is not None and old is not None and new is not None:
                same = old.block_s == new.block_s
                group.blocks = group.blocks.relabelled(old.signals, new.signals) if same else None
        self._reference = reference

    def remember(self, stored: Mapping[str, StoredGroup]) -> None:
        """Continue the episodes of an earlier process when rows of their groups come."""
        self._remembered = {name: group for name, group in stored.items() if name not in self.groups}

    def stored_groups(self) -> dict[str, StoredGroup]:
        """Return what a later process needs to continue the episodes of all groups."""
        return self._remembered | {
            name: StoredGroup(group.episode, group.episodes, group.samples)
            for name, group in self.groups.items()
        }

    def add(self, row: Row) -> list[Check]:
        """Add a row, and return the checks that were due before it."""
        checks = self.advance(row.at)
        self.restore(row)
        return checks

    def restore(self, row: Row) -> None:
        """Add a row without checking anything, as one of an earlier process."""
        group = self._group(row.stream)
        limits = self._limits(row.stream)
        if limits is not None:
            self._roll(group, row.stream, limits, row.at)
        group.recent.add(row)

    def advance(self, at: float) -> list[Check]:
        """Return the checks that are due at that time."""
        step_s = self.config.step_s
        if not self.next_check or at < self.next_check - 2 * step_s:
            self.next_check = at + step_s  # this is the first row, or the clock was set back
        if at > self.next_check + self.config.window_s:
            self.next_check = at  # after a long gap, skip the checks of the gap
        checks = []
        while at >= self.next_check:
            self.last_check = self.next_check
            checks += [self._check(name, group, self.next_check) for name, group in self.groups.items()]
            self.next_check += step_s
        return checks

    def settle(self, check: Check, scores: Mapping[str, float] | None = None) -> bool:
        """Apply a check to its group's episode; return whether it begins an episode.

        ``scores`` are those of Evidently by column. They replace the scores of the builtin engine.
        """
        group = self.groups.get(check.group)
        if group is None:
            return False
        if scores is not None:
            check.engine = "evidently"
            for column in check.columns:
                if column.name in scores and column.score is not None:
                    column.score = scores[column.name]
        group.check = check
        if check.scorer is None:
            return False
        was_on = group.episode.running
        check.onset = self._onset(check, group)
        begun = group.episode.add_window(
            check.ratio,
            check.window.end,
            calibrated=check.scorer.calibrated,
            effect=check.effect,
            onset=check.onset,
            columns={column.name: column.ratio for column in check.columns},
        )
        if was_on and not group.episode.running:
            group.ended_at = check.window.end
        if begun:
            group.episodes += 1
            group.samples = 0
        return begun

    def wants_sample(self, name: str) -> bool:
        """Return whether to keep a frame of a group for labelling because the group is in drift."""
        group = self.groups.get(name)
        return group is not None and group.episode.on and group.samples < self.config.samples

    def sample_taken(self, name: str) -> None:
        """Count a frame that was kept because its group is in drift."""
        if name in self.groups:
            self.groups[name].samples += 1

    @property
    def drifting(self) -> list[str]:
        """Names of the groups in drift."""
        return [name for name, group in self.groups.items() if group.episode.on]

    # -- one group -----------------------------------------------------------------------------------

    def _group(self, name: str) -> Group:
        group = self.groups.get(name)
        if group is None:
            recent = RecentRows(self.config.window_s, self.config.interval_s, mixed=self._mixed(name))
            group = self.groups[name] = Group(recent)
            stored = self._remembered.pop(name, None)
            if stored is not None:
                group.episode, group.episodes, group.samples = stored.episode, stored.episodes, stored.samples
            if len(self.groups) > MAX_GROUPS:
                self.groups.popitem(last=False)
        self.groups.move_to_end(name)
        return group

    def _limits(self, name: str) -> Limits | None:
        reference = self._reference.of(name) if self._reference is not None else None
        return reference.limits if reference is not None else None

    def _roll(self, group: Group, name: str, limits: Limits, at: float) -> None:
        """Summarise the rows before the block of that time, as far as they are not yet summarised."""
        first = int(at // limits.block_s)
        known = group.blocks
        if (
            known is not None
            and known.first + len(known) - 2 * KEPT_BLOCKS < first < known.first + len(known) - 2
        ):
            known = None  # the clock was set back
        begin = known.first + len(known) if known is not None else first - 1
        if first <= begin:
            return
        if known is not None and first - begin > KEPT_BLOCKS:
            known, begin = None, first - 1  # a long gap
        later = self._blocks(group, name, limits, begin, first - begin)
        group.blocks = (known.extended(later) if known is not None else later).last(KEPT_BLOCKS)

    def _blocks(self, group: Group, name: str, limits: Limits, first: int, count: int) -> Blocks:
        rows = group.recent.between(first * limits.block_s, (first + count) * limits.block_s)
        table = Table.of(rows)
        values = limits.signals.values(table)
        model = self._reference.of(name).model if self._reference is not None else ""  # type: ignore[union-attr]
        if model:
            other = np.array([row.model != model for row in rows], np.bool_)
            values[np.ix_(other, limits.signals.of_model)] = np.nan
        return Blocks.of(table.at, values, limits.block_s, first, count)

    def _check(self, name: str, group: Group, at: float) -> Check:
        window = group.recent.window(at)
        reference = self._reference.of(name) if self._reference is not None else None
        if reference is None:
            return Check(name, window, "no_reference")
        if reference.limits is not None:
            self._roll(group, name, reference.limits, at)
        if not window.enough:
            return Check(name, window, "insufficient_data")
        if reference.limits is not None and not reference.limits.seen.covers(window.begin, window.end):
            return Check(name, window, "not_seen")
        check = self.score(name, window, reference)
        if reference.limits is not None and group.blocks is not None:
            span_s = (2 * max(SCALES) + GAP) * reference.limits.block_s
            steps = not group.episode.running and at - group.ended_at > span_s
            evidence = reference.limits.judge(group.blocks, steps=steps)
            for column in check.columns:
                if column.skipped != "other_model":
                    column.evidence = evidence.get(column.name)
        if check.ratio >= RESCORE_FROM or at - group.asked_at >= ASK_EVERY_S:
            check.ask = True
            group.asked_at = at
        return check

    def _onset(self, check: Check, group: Group) -> Onset | None:
        """Return how and when the column that moved most began to change."""
        limits, blocks = self._limits(check.group), group.blocks
        if check.ratio < 1 or limits is None or blocks is None:
            return None
        column = max(check.columns, key=lambda found: found.ratio)
        if column.evidence is None:
            return None
        found = limits.beginning(blocks, column.evidence.signal)
        if column.evidence.basis == "step":
            return Onset("sudden", found[1] if found is not None else check.window.begin)
        return Onset(*found) if found is not None else None

    @staticmethod
    def score(name: str, window: Window, reference: GroupReference) -> Check:
        """Score one window of a group against a reference."""
        scorer = reference.at((window.begin + window.end) / 2)
        of_model = [row for row in window.rows if not reference.model or row.model == reference.model]
        stale = len(of_model) < MIN_ROWS
        every = Table.of(window.rows)
        table = None if stale else every if len(of_model) == len(window.rows) else Table.of(of_model)
        scores = scorer.score(every, table)
        effect = effect_on_detections(scorer, table) if table is not None else 0.0
        return Check(name, window, "scored", scores, stale, scorer, effect=effect)
