"""When a group is in drift: a window that passes its thresholds is no news yet, two of three are. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

#: Hot windows of the last three that begin an episode; with thresholds that fit nothing in particular, all.
ENTER, ENTER_PLAIN, OF = 2, 3, 3
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
    #: Whether the last windows were hot, the newest last.
    hot: deque[bool] = field(default_factory=lambda: deque(maxlen=OF))
    _clean: int = 0

    @property
    def on(self) -> bool:
        """Whether the group is in drift."""
        return self.since is not None

    def see(self, ratio: float, at: float, *, calibrated: bool) -> bool:
        """Take in a window's greatest score by threshold; returns whether an episode has begun with it."""
        is_hot = ratio >= 1
        self.hot.append(is_hot)
        self._clean = 0 if is_hot else self._clean + 1
        if self.on:
            self.worst = max(self.worst, ratio)
            if self._clean >= CLEAR:
                self.reset()
            return False
        if not self.would_enter(ratio, calibrated=calibrated, seen=True):
            return False
        self.since, self.worst = at, ratio
        return True

    def would_enter(self, ratio: float, *, calibrated: bool, seen: bool = False) -> bool:
        """Whether a window of that ratio begins an episode; ``seen``: it is among the last ones already."""
        if self.on or ratio < 1:
            return False
        needed = ENTER if calibrated else ENTER_PLAIN
        last = [*self.hot, *([] if seen else [True])][-OF:]
        return sum(last) >= needed or (calibrated and ratio >= SEVERE)

    def reset(self) -> None:
        """Forget everything: it is over, or the reference is another one."""
        self.since, self.worst, self._clean = None, 0.0, 0
        self.hot.clear()
