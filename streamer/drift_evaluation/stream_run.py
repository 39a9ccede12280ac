"""Runs the monitor of the service over the stored rows of one stream, and describes what it finds. Pure.

The monitor is the same, with the same windows, limits and episodes; only the time is that of the rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from streamer.drift.episode import OF
from streamer.drift.monitor import Check, DriftConfig, Group, Monitor
from streamer.drift.reference import GroupReference, Reference
from streamer.drift.row_file import FILE_S
from streamer.drift.rows import Table
from streamer.drift.status import moved_columns
from streamer.drift_evaluation.period import Period
from streamer.drift_evaluation.stored_rows import Joined
from streamer.drift_evaluation.stream_result import FoundEpisode, MovedColumn, StreamResult, WindowPoint
from streamer.sampling.candidate import UNNAMED

#: Seconds of rows before the period that the monitor gets without judging them: the longest mean, and the
#: window before it.
LEAD_S = 7 * 3600.0
#: Evidently scores the windows that begin an episode, for at most this many episodes of a stream.
MAX_EPISODES = 8

Scores = Mapping[float, Mapping[str, float]]


@dataclass(slots=True)
class StreamRun:
    """Judges one stream. Call ``add()`` with its half hours in order, then ``finish()``."""

    result: StreamResult
    reference: GroupReference
    period: Period
    config: DriftConfig
    #: Scores of Evidently by end of the window and by column, from an earlier run.
    scores: Scores = field(default_factory=dict)
    #: The windows that began episodes, and the worst window of all; what Evidently should score.
    decisive: list[Check] = field(default_factory=list)
    worst: Check | None = None
    _monitor: Monitor = field(init=False)
    _flagged: deque[Check] = field(init=False)

    def __post_init__(self) -> None:
        name = self.result.stream
        self._monitor = Monitor(self.config, lambda group: group == UNNAMED)
        self._monitor.set_reference(Reference({name: self.reference}, "", ""))
        self._monitor.next_check = self.period.begin + self.config.step_s
        self._flagged = deque(maxlen=OF)

    def add(self, joined: Joined) -> None:
        """Add the rows of a half hour."""
        result = self.result
        inside = [row for row in joined.rows if row.at >= self.period.begin]
        for row in joined.rows:
            if row.at < self.period.begin:
                self._monitor.restore(row)
                continue
            for check in self._monitor.add(row):
                self._settle(check)
        if not inside:
            return
        self._count_gap(inside[0].at)
        result.course.add(joined.begin, Table.of(inside).numbers)
        result.models.update(row.model for row in inside)
        result.replicas.update(joined.replicas)
        result.repeated += joined.repeated
        result.overlap_s += joined.overlap_s
        for replica in joined.replicas:
            first, _ = result.spans.get(replica, (float(joined.begin), 0.0))
            result.spans[replica] = first, float(joined.begin + FILE_S)

    def finish(self) -> None:
        """Check the windows up to the end of the period."""
        for check in self._monitor.advance(self.period.end):
            self._settle(check)
        self._count_gap(self.period.end)
        for episode in self.result.episodes[-1:]:
            group = self._monitor.groups.get(self.result.stream)
            episode.goes_on = group is not None and group.episode.on

    def _count_gap(self, at: float) -> None:
        course = self.result.course
        seen = course.at[-1] + FILE_S if course.at else self.period.begin
        if at - seen >= FILE_S:
            self.result.gaps.append((seen, at // FILE_S * FILE_S))

    def _settle(self, check: Check) -> None:
        end = check.window.end
        begun = self._monitor.settle(check, self.scores.get(end))
        group = self._monitor.groups[self.result.stream]
        episode = group.episode
        self.result.windows.append(
            WindowPoint(
                end,
                check.outcome,
                check.ratio,
                episode.on,
                episode.running and episode.recurring,
                check.stale,
            )
        )
        if check.scorer is None:
            return
        if check.ratio >= 1:
            self._flagged.append(check)
        if self.worst is None or check.ratio > self.worst.ratio:
            self.worst = check
        if begun:
            self._begin(check, group)
        elif episode.on and self.result.episodes:
            self._continue(check, group)

    def _begin(self, check: Check, group: Group) -> None:
        episode, onset = group.episode, group.episode.onset
        end = check.window.end
        self.result.episodes.append(
            FoundEpisode(
                since=end,
                until=end,
                goes_on=False,
                severity=episode.severity,
                worst=check.ratio,
                kind=onset.kind if onset else None,
                changed_at=onset.at if onset else None,
                moved=moved_of(check),
                engine=check.engine,
            )
        )
        if len(self.result.episodes) <= MAX_EPISODES:
            span_s = OF * self.config.step_s
            self.decisive += [each for each in self._flagged if end - each.window.end < span_s]

    def _continue(self, check: Check, group: Group) -> None:
        found, episode = self.result.episodes[-1], group.episode
        found.until = check.window.end
        found.severity = episode.severity
        if check.ratio > found.worst:
            found.worst, found.moved = check.ratio, moved_of(check) or found.moved
        if found.kind is None and episode.onset is not None:
            found.kind, found.changed_at = episode.onset.kind, episode.onset.at


def moved_of(check: Check) -> list[MovedColumn]:
    """Return the columns that have moved in a window, those that moved most first."""
    return [
        MovedColumn(column.name, column.ratio, column.basis, column.medians)
        for column in moved_columns(check)
    ]
