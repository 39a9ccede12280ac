"""Decides when a group enters and leaves drift: one window just over a threshold is not enough. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

#: An episode begins when two of the last three windows are well over a threshold, or all three are over one.
#: Without drift, two windows just over a threshold occur every week or two; waiting for the third costs ten
#: minutes.
ENTER, OF, WELL_OVER = 2, 3, 1.15
#: An episode ends after this many windows in a row without a flagged column.
CLEAR = 3
#: Ratios of score to threshold. One window with a severe ratio begins an episode; a covered lens causes one.
SEVERE, MODERATE = 3.0, 1.5


Severity = Literal["minor", "moderate", "severe"]


def severity(ratio: float) -> Severity:
    """Return the severity of the greatest ratio of score to threshold."""
    if ratio >= SEVERE:
        return "severe"
    return "moderate" if ratio >= MODERATE else "minor"


@dataclass(slots=True)
class Episode:
    """Holds the state of one group. Call ``add_window`` for every scored window, in order."""

    #: End of the window that began the episode, unix seconds; None outside an episode.
    since: float | None = None
    #: Greatest ratio since the episode began.
    worst: float = 0.0
    #: Greatest ratios of the last windows, the newest last. A window with 1 or more is flagged.
    ratios: deque[float] = field(default_factory=lambda: deque(maxlen=OF))
    _clean: int = 0

    @property
    def on(self) -> bool:
        """Whether the group is in drift."""
        return self.since is not None

    def add_window(self, ratio: float, at: float, *, calibrated: bool) -> bool:
        """Add a window with this greatest ratio of score to threshold; return whether an episode begins."""
        self.ratios.append(ratio)
        self._clean = 0 if ratio >= 1 else self._clean + 1
        if self.on:
            self.worst = max(self.worst, ratio)
            if self._clean >= CLEAR:
                self.reset()
            return False
        if not self._begins(ratio, calibrated=calibrated):
            return False
        self.since, self.worst = at, ratio
        return True

    def _begins(self, ratio: float, *, calibrated: bool) -> bool:
        """Return whether the newest window, which has this ratio, begins an episode."""
        if sum(past >= 1 for past in self.ratios) == OF:
            return True
        # Any busy hour is well over default thresholds, so with these only three flagged windows count.
        if not calibrated or ratio < 1:
            return False
        return ratio >= SEVERE or sum(past >= WELL_OVER for past in self.ratios) >= ENTER

    def reset(self) -> None:
        """Forget all windows: the episode has ended, or the reference was replaced."""
        self.since, self.worst, self._clean = None, 0.0, 0
        self.ratios.clear()
