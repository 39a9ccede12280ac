"""Accounts posted images: each is received once and has one outcome, as frames of streams have."""

from __future__ import annotations

from types import TracebackType

from streamer.accounting.counters import FrameCounters
from streamer.accounting.ledger import Ledger
from streamer.protocol.wire import DropReason
from streamer.scheduling.errors import DeadlineExceeded, OverLimit, Saturated, SchedulingError

#: Images that were never run are dropped for these reasons; whatever else is raised means that one failed.
_DROP_REASONS = {
    OverLimit: DropReason.RATE,
    Saturated: DropReason.OVERLOAD,
    DeadlineExceeded: DropReason.STALE,
}


class PostAccount:
    """The account of one version. Entered for an image it counts it as received, left it counts its outcome.

    It keeps nothing of the image, so one is enough for all images at a time.
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
        """Account an image that was refused before it could be read."""
        self._ledger.received += 1
        self._account_error(error)
        self._counters.account(self._ledger)

    def _account_error(self, error: BaseException) -> None:
        """Account an image that was not answered with boxes."""
        reason = _DROP_REASONS.get(type(error))
        if reason is None:
            self._ledger.failed += 1
        else:
            self._ledger.dropped[reason] += 1
