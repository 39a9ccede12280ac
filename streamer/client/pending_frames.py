"""Frames that were accepted but not sent yet: only the newest (live), or a short queue (all). No I/O."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from streamer.client.encoder import Encoded, ImageInput
from streamer.client.results import Drop, FrameError, Ledger, Outcome

#: Length of the queue in mode all. Frames wait while another is encoded, so that source and encoder stay
#: busy.
QUEUE_MAX = 2


@dataclass(slots=True, eq=False)
class PendingFrame:
    """A frame that waits to be encoded or sent."""

    image: ImageInput
    captured_s: float
    tag: Any
    #: None until the frame is encoded.
    encoded: Encoded | None = None


class PendingFrames:
    """Holds the frames between ``offer``/``send`` and the sender.

    Every frame that is put in is either sent or gets an outcome with ``seq`` 0.
    """

    def __init__(self, mode: str, ledger: Ledger) -> None:
        self._live = mode == "live"
        self._ledger = ledger
        self._queue: deque[PendingFrame] = deque()
        #: The frame that is being encoded or waits for the window.
        self.current: PendingFrame | None = None

    def __len__(self) -> int:
        return len(self._queue) + (self.current is not None)

    @property
    def full(self) -> bool:
        """Whether the queue of mode all is full."""
        return len(self._queue) >= QUEUE_MAX

    def refuse(self, reason: str) -> None:
        """Count a frame that is not accepted."""
        self._ledger.offered += 1
        self._ledger.skipped[reason] += 1

    def put(self, pending: PendingFrame) -> list[Outcome]:
        """Add a frame. In mode live it replaces the frame that waits, whose drop is returned."""
        self._ledger.offered += 1
        self._ledger.waiting += 1
        replaced = self.drop_waiting("replaced") if self._live else []
        self._queue.append(pending)
        return replaced

    def next(self) -> PendingFrame | None:
        """Return the current frame; if there is none, the next frame becomes current."""
        if self.current is None and self._queue:
            self.current = self._queue.popleft()
        return self.current

    def sent(self) -> None:
        """Remove the current frame, which got its sequence number."""
        self.current = None
        self._ledger.waiting -= 1

    def fail(self, code: str, text: str) -> Outcome:
        """Remove the current frame, which cannot be sent, and return the error as its outcome."""
        pending = self._remove_current()
        self._ledger.skipped[code] += 1
        return FrameError(0, pending.captured_s, pending.tag, code, text)

    def drop_current(self, reason: str) -> list[Outcome]:
        """Drop the current frame, if there is one."""
        if self.current is None:
            return []
        pending = self._remove_current()
        self._ledger.skipped[reason] += 1
        return [Drop(0, pending.captured_s, pending.tag, reason)]

    def drop_waiting(self, reason: str) -> list[Outcome]:
        """Drop all frames but the current one."""
        outcomes: list[Outcome] = [
            Drop(0, pending.captured_s, pending.tag, reason) for pending in self._queue
        ]
        self._ledger.waiting -= len(self._queue)
        self._ledger.skipped[reason] += len(self._queue)
        if not self._ledger.skipped[reason]:
            del self._ledger.skipped[reason]
        self._queue.clear()
        return outcomes

    def _remove_current(self) -> PendingFrame:
        pending = self.current
        if pending is None:
            raise RuntimeError("no frame is current")
        self.current = None
        self._ledger.waiting -= 1
        return pending
