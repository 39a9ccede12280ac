"""When a group is in drift: a window that passes its thresholds is no news yet, two of three are. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

#: Of the last three windows two well over a threshold begin an episode, or all of them just over it. Two just
#: over it are once in a week or two what a quiet day looks like; waiting for the third costs ten minutes.
ENTER, OF, WELL_OVER = 2, 3, 1.15
#: Clean windows in a row that end it.
CLEAR = 3
#: Score by threshold from which one window is enough: a covered lens.
SEVERE, MODERATE = 3.0, 1.5


def severity(ratio: float) -> str:
    """Return a word for the greatest score by threshold."""
    if ratio >= SEVERE:
        return "severe"
    return "moderate" if ratio >= MODERATE else "minor"


@dataclass(slots=True)
class Episode:
    """The state of one group; ``see`` every window that could be scored, in order."""

    #: End of the window that began it, unix seconds; None while there is none.
    since: float | None = None
    #: Greatest ratio since then.
    worst: float = 0.0
    #: Greatest ratios of the last windows, the newest last; 1 and more is hot.
    ratios: deque[float] = field(default_factory=lambda: deque(maxlen=OF))
    _clean: int = 0

    @property
    def on(self) -> bool:
        """Whether the group is in drift."""
        return self.since is not None

    def see(self, ratio: float, at: float, *, calibrated: bool) -> bool:
        """Take in a window's greatest score by threshold; returns whether an episode has begun with it."""
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
        """Whether the newest window, of that ratio, begins an episode."""
        if sum(past >= 1 for past in self.ratios) == OF:
            return True
        # Thresholds that fit nothing in particular are passed well by any busy hour.
        if not calibrated or ratio < 1:
            return False
        return ratio >= SEVERE or sum(past >= WELL_OVER for past in self.ratios) >= ENTER

    def reset(self) -> None:
        """Forget everything: it is over, or the reference is another one."""
        self.since, self.worst, self._clean = None, 0.0, 0
        self.ratios.clear()
