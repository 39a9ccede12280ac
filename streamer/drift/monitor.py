"""Judges the groups' windows every few minutes and keeps their episodes. Pure; rows bring the time along.

A window is scored here at once. Where that comes near a threshold, and now and then for every group, the
check is handed out unsettled, so that Evidently can have its say before `settle()`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from streamer.drift.calibration import LEAST_ROWS
from streamer.drift.columns import Row
from streamer.drift.config import Plan
from streamer.drift.episode import Episode
from streamer.drift.reference import GroupReference, Reference
from streamer.drift.reference_scorer import ColumnScore, Yardstick
from streamer.drift.table import Table
from streamer.drift.window import Recent, Window

MAX_GROUPS = 64
#: From this share of a threshold on, Evidently is asked.
ASK_FROM = 0.8
#: And for every group once in this time.
ASK_EVERY_S = 3600.0


@dataclass(slots=True)
class Check:
    """One window of one group, scored."""

    group: str
    window: Window
    #: `no_reference`, `insufficient_data`, or `scored`.
    outcome: str
    columns: list[ColumnScore] = field(default_factory=list)
    #: Too few rows of the model that the reference knows.
    stale: bool = False
    #: What it was measured by; None where it was not.
    yardstick: Yardstick | None = None
    #: Evidently is to score it too.
    ask: bool = False
    engine: str = "builtin"

    @property
    def ratio(self) -> float:
        """Greatest score by threshold."""
        return max((column.ratio for column in self.columns), default=0.0)


@dataclass(slots=True)
class Group:
    """What is known of one group."""

    recent: Recent
    episode: Episode = field(default_factory=Episode)
    #: The last one that was settled; None until then.
    check: Check | None = None
    #: End of the last window that Evidently was asked about.
    asked_at: float = 0.0
    #: Episodes since the process was started, and samples taken because of the present one.
    episodes: int = 0
    samples: int = 0


class Monitor:
    """``add`` rows and ``settle`` the checks that come back, in order."""

    def __init__(self, plan: Plan, mixed: Callable[[str], bool] = lambda _group: False) -> None:
        self.plan = plan
        self._mixed = mixed
        #: None while there is none.
        self._reference: Reference | None = None
        self.groups: OrderedDict[str, Group] = OrderedDict()
        #: When windows are judged next, unix seconds; 0 before the first row.
        self.next_check = 0.0
        #: End of the windows judged last; 0 before.
        self.last_check = 0.0

    @property
    def reference(self) -> Reference | None:
        """What windows are measured by."""
        return self._reference

    def refer_to(self, reference: Reference | None) -> None:
        """Measure by another reference from now on: all windows and episodes begin anew."""
        self._reference = reference
        for group in self.groups.values():
            group.recent.clear()
            group.episode.reset()
            group.check = None

    def add(self, row: Row) -> list[Check]:
        """Take in a row; returns the checks that were due before it."""
        checks = self.advance(row.at)
        self._group(row.stream).recent.add(row)
        return checks

    def restore(self, row: Row) -> None:
        """Take in a row of an earlier process, without judging."""
        self._group(row.stream).recent.add(row)

    def advance(self, at: float) -> list[Check]:
        """Return the checks that are due at that time."""
        step_s = self.plan.step_s
        if not self.next_check or at < self.next_check - 2 * step_s:
            self.next_check = at + step_s  # the first row, or the clock was set back
        if at > self.next_check + self.plan.window_s:
            self.next_check = at  # after a long silence only the present counts
        checks = []
        while at >= self.next_check:
            self.last_check = self.next_check
            checks += [self._check(name, group, self.next_check) for name, group in self.groups.items()]
            self.next_check += step_s
        return checks

    def settle(self, check: Check, scores: Mapping[str, float] | None = None) -> bool:
        """Take a check for decided; returns whether an episode has begun with it.

        Evidently's ``scores`` by column, where there are any, replace ours.
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
        if check.yardstick is None:
            return False
        calibrated = check.yardstick.calibration.calibrated
        entered = group.episode.see(check.ratio, check.window.end, calibrated=calibrated)
        if entered:
            group.episodes += 1
            group.samples = 0
        return entered

    def wants_sample(self, name: str) -> bool:
        """Whether frames of a group are worth labelling because it is in drift."""
        group = self.groups.get(name)
        return group is not None and group.episode.on and group.samples < self.plan.samples

    def sample_taken(self, name: str) -> None:
        """A frame was kept because of it."""
        if name in self.groups:
            self.groups[name].samples += 1

    @property
    def drifting(self) -> list[str]:
        """Groups in drift."""
        return [name for name, group in self.groups.items() if group.episode.on]

    # -- one group -----------------------------------------------------------------------------------

    def _group(self, name: str) -> Group:
        group = self.groups.get(name)
        if group is None:
            recent = Recent(self.plan.window_s, self.plan.interval_s, mixed=self._mixed(name))
            group = self.groups[name] = Group(recent)
            if len(self.groups) > MAX_GROUPS:
                self.groups.popitem(last=False)
        self.groups.move_to_end(name)
        return group

    def _check(self, name: str, group: Group, at: float) -> Check:
        window = group.recent.window(at)
        known = self._reference.of(name) if self._reference is not None else None
        if known is None:
            return Check(name, window, "no_reference")
        if not window.enough:
            return Check(name, window, "insufficient_data")
        check = self.measure(name, window, known)
        if check.ratio >= ASK_FROM or at - group.asked_at >= ASK_EVERY_S:
            check.ask = True
            group.asked_at = at
        return check

    @staticmethod
    def measure(name: str, window: Window, known: GroupReference) -> Check:
        """Score one window against a reference."""
        yardstick = known.at((window.begin + window.end) / 2)
        of_model = [row for row in window.rows if not known.model or row.model == known.model]
        stale = len(of_model) < LEAST_ROWS
        scores = yardstick.score(Table.of(window.rows), None if stale else Table.of(of_model))
        return Check(name, window, "scored", scores, stale, yardstick)
