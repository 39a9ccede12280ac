"""Decides when a group enters and leaves drift: one window just over a threshold is not enough. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from streamer.drift.change_points import Kind
from streamer.drift.day import DAY_S, HOUR_S
from streamer.drift.severity import Severity, severity

#: An episode begins when two of the last three windows are well over a threshold, or all three are over one.
ENTER, OF, WELL_OVER = 2, 3, 1.15
#: An episode ends after this many windows in a row without a flagged column.
CLEAR = 3
#: One window with this ratio of score to threshold begins an episode; a covered lens causes one.
AT_ONCE = 3.0

#: What has happened on this many days, at about the same time of day and with the same columns, and was over
#: again by itself, is expected on the next ones: lamps, a camera's switch to infrared.
RECURRING_AFTER = 2
RECURRING_WITHIN_S, RECURRING_SIMILARITY = 1.5 * HOUR_S, 0.7
#: It is drift after all when it takes so much longer than before.
LONGER_FACTOR, LONGER_S = 1.5, HOUR_S
#: Columns from this ratio on are compared.
COMPARED_RATIO = 0.5
MAX_PAST = 32


@dataclass(frozen=True, slots=True)
class Onset:
    """Says how a change began, and when (unix seconds)."""

    kind: Kind
    at: float


@dataclass(frozen=True, slots=True)
class PastEpisode:
    """Holds an episode that is over: its begin and end, and the ratio of each column at its beginning."""

    begin: float
    end: float
    columns: Mapping[str, float]
    #: Whether it was drift; False for a recurring change.
    drift: bool = True
    onset: Onset | None = None


@dataclass(slots=True)
class Episode:
    """Holds the state of one group. Call ``add_window`` for every scored window, in order."""

    #: End of the window that began the episode, unix seconds; None outside an episode.
    since: float | None = None
    #: Greatest ratio since the episode began, and greatest effect on detections.
    worst: float = 0.0
    effect: float = 0.0
    #: How it began; None if that could not be told.
    onset: Onset | None = None
    #: Whether it is one that recurs from day to day, and thus no drift.
    recurring: bool = False
    #: Greatest ratios of the last windows, the newest last. A window with 1 or more is flagged.
    ratios: deque[float] = field(default_factory=lambda: deque(maxlen=OF))
    _clean: int = 0
    #: Ratios of the columns with which it began.
    columns: Mapping[str, float] = field(default_factory=dict)
    #: Episodes that are over, oldest first.
    past: deque[PastEpisode] = field(default_factory=lambda: deque(maxlen=MAX_PAST))

    @property
    def running(self) -> bool:
        """Whether something differs from the reference, drift or a recurring change."""
        return self.since is not None

    @property
    def on(self) -> bool:
        """Whether the group is in drift."""
        return self.running and not self.recurring

    @property
    def severity(self) -> Severity:
        """How severe the episode has been at most."""
        return severity(self.worst, self.effect)

    def add_window(
        self,
        ratio: float,
        at: float,
        *,
        calibrated: bool,
        effect: float = 0.0,
        onset: Onset | None = None,
        columns: Mapping[str, float] | None = None,
    ) -> bool:
        """Add a window with this greatest ratio of score to threshold; return whether an episode begins."""
        self.ratios.append(ratio)
        self._clean = 0 if ratio >= 1 else self._clean + 1
        if self.since is not None:
            return self._continue(ratio, at, effect, onset)
        if not self._begins(ratio, calibrated=calibrated):
            return False
        self.since, self.worst, self.effect, self.onset = at, ratio, effect, onset
        self.columns = {name: found for name, found in (columns or {}).items() if found >= COMPARED_RATIO}
        self.recurring = len(self._alike(at)) >= RECURRING_AFTER
        return not self.recurring

    def _continue(self, ratio: float, at: float, effect: float, onset: Onset | None) -> bool:
        self.worst, self.effect = max(self.worst, ratio), max(self.effect, effect if ratio >= 1 else 0.0)
        self.onset = self.onset or onset
        begin = self.since or at
        if self._clean >= CLEAR:
            self.past.append(PastEpisode(begin, at, self.columns, not self.recurring, self.onset))
            self.reset()
            return False
        if self.recurring:
            longest = max((past.end - past.begin for past in self._alike(begin)), default=0.0)
            if at - begin > LONGER_FACTOR * longest + LONGER_S:
                self.recurring = False
                self.since = at
                return True
        return False

    def _begins(self, ratio: float, *, calibrated: bool) -> bool:
        """Return whether the newest window, which has this ratio, begins an episode."""
        if sum(past >= 1 for past in self.ratios) == OF:
            return True
        # Any busy hour is well over default thresholds, so with these only three flagged windows count.
        if not calibrated or ratio < 1:
            return False
        return ratio >= AT_ONCE or sum(past >= WELL_OVER for past in self.ratios) >= ENTER

    def _alike(self, at: float) -> list[PastEpisode]:
        """Return past episodes of other days that began at this time of day with the same columns."""
        return [
            past
            for past in self.past
            if at - past.begin > DAY_S / 2
            and abs((at - past.begin + DAY_S / 2) % DAY_S - DAY_S / 2) <= RECURRING_WITHIN_S
            and _similarity(past.columns, self.columns) >= RECURRING_SIMILARITY
        ]

    def reset(self) -> None:
        """Leave the episode, which is over."""
        self.since, self.worst, self.effect, self._clean = None, 0.0, 0.0, 0
        self.onset, self.recurring, self.columns = None, False, {}
        self.ratios.clear()


def _similarity(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Return the cosine of the angle between two sets of ratios."""
    shared = sum(first[name] * second[name] for name in first.keys() & second.keys())
    norm = math.hypot(*first.values()) * math.hypot(*second.values()) if first and second else 0.0
    return shared / norm if norm else 0.0
