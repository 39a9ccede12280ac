"""Accounts posted images: each is received once and has one outcome, like the frames of streams."""

from __future__ import annotations

from types import TracebackType

from streamer.accounting.counters import FrameCounters
from streamer.accounting.ledger import Ledger
from streamer.protocol.wire import DropReason
from streamer.scheduling.errors import DeadlineExceeded, OverLimit, Saturated, SchedulingError

#: Drop reasons of images that never ran. Any other error means that the image failed.
_DROP_REASONS = {
    OverLimit: DropReason.RATE,
    Saturated: DropReason.OVERLOAD,
    DeadlineExceeded: DropReason.STALE,
}


class PostAccount:
    """The account of one version, a context manager: entry counts an image as received, exit counts its
    outcome.

    It holds no state of an image, so one instance serves all concurrent images.
    """

    def __init__(self, ledger: Ledger, counters: FrameCounters) -> None:
        self._ledger = ledger
        self._counters = counters

    def __enter__(self) -> None:
        self._ledger.received += 1
        self._counters.account(self._ledger)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._ledger.inferred += 1
        else:
            self._account_error(error)
        self._counters.account(self._ledger)

    def refused(self, error: SchedulingError) -> None:
        """Account an image that was refused before it was read."""
        self._ledger.received += 1
        self._account_error(error)
        self._counters.account(self._ledger)

    def _account_error(self, error: BaseException) -> None:
        """Account an image that got an error instead of boxes."""
        reason = _DROP_REASONS.get(type(error))
        if reason is None:
            self._ledger.failed += 1
        else:
            self._ledger.dropped[reason] += 1
