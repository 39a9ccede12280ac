"""Pictures that were taken but not sent yet: one newest (live), or a short queue in order (all). Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from streamer.client.encoder import Encoded, Picture
from streamer.client.results import Drop, FrameError, Ledger, Outcome

#: Mode all: one picture waits while another is encoded, so that neither the source nor the encoder idles.
QUEUE_MAX = 2


@dataclass(slots=True, eq=False)
class PendingFrame:
    """A picture on its way to the wire."""

    picture: Picture
    captured_s: float
    tag: Any
    #: Set once the encoder is done with it.
    encoded: Encoded | None = None


class PendingFrames:
    """Between ``offer``/``send`` and the sender. Whatever is taken ends sent, or with an outcome of seq 0."""

    def __init__(self, mode: str, ledger: Ledger) -> None:
        self._live = mode == "live"
        self._ledger = ledger
        self._queue: deque[PendingFrame] = deque()
        #: The one that is being encoded or waits for the window.
        self.current: PendingFrame | None = None

    def __len__(self) -> int:
        return len(self._queue) + (self.current is not None)

    @property
    def full(self) -> bool:
        """Whether mode all has to wait."""
        return len(self._queue) >= QUEUE_MAX

    def refuse(self, reason: str) -> None:
        """Count a picture that is not taken."""
        self._ledger.offered += 1
        self._ledger.skipped[reason] += 1

    def put(self, pending: PendingFrame) -> list[Outcome]:
        """Take a picture; live: the one that still waits gives way to it."""
        self._ledger.offered += 1
        self._ledger.waiting += 1
        replaced = self.drop_waiting("replaced") if self._live else []
        self._queue.append(pending)
        return replaced

    def next(self) -> PendingFrame | None:
        """Make the next picture the current one and return it; an unfinished one comes first."""
        if self.current is None and self._queue:
            self.current = self._queue.popleft()
        return self.current

    def sent(self) -> None:
        """The current picture has its sequence number."""
        self.current = None
        self._ledger.waiting -= 1

    def fail(self, code: str, text: str) -> Outcome:
        """The current picture cannot be sent."""
        pending = self._forget_current()
        self._ledger.skipped[code] += 1
        return FrameError(0, pending.captured_s, pending.tag, code, text)

    def drop_current(self, reason: str) -> list[Outcome]:
        """Let go of the current picture, if there is one."""
        if self.current is None:
            return []
        pending = self._forget_current()
        self._ledger.skipped[reason] += 1
        return [Drop(0, pending.captured_s, pending.tag, reason)]

    def drop_waiting(self, reason: str) -> list[Outcome]:
        """Let go of everything that is not current."""
        outcomes: list[Outcome] = [
            Drop(0, pending.captured_s, pending.tag, reason) for pending in self._queue
        ]
        self._ledger.waiting -= len(self._queue)
        self._ledger.skipped[reason] += len(self._queue)
        if not self._ledger.skipped[reason]:
            del self._ledger.skipped[reason]
        self._queue.clear()
        return outcomes

    def _forget_current(self) -> PendingFrame:
        pending = self.current
        if pending is None:
            raise RuntimeError("no picture is current")
        self.current = None
        self._ledger.waiting -= 1
        return pending
