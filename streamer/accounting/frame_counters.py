"""Carries the ledgers of streams into the metrics; keeps label look-ups off the path of a frame."""

from __future__ import annotations

from streamer.accounting.ledger import Ledger
from streamer.accounting.metrics import WorkerMetrics
from streamer.protocol.wire import DropReason


class FrameCounters:
    """Adds to the metrics what has changed in a ledger since it was last looked at."""

    def __init__(self, metrics: WorkerMetrics, transport: str, version: str) -> None:
        self._received = metrics.received.labels(transport, version)
        self._inferred = metrics.inferred.labels(transport, version)
        self._failed = metrics.failed.labels(transport, version)
        self._in_flight = metrics.in_flight.labels(transport, version)
        self._dropped = {
            reason: metrics.dropped.labels(transport, version, reason.value) for reason in DropReason
        }
        #: What was accounted so far, per ledger (by identity: ledgers change).
        self._seen: dict[int, Ledger] = {}

    def account(self, ledger: Ledger) -> None:
        """Bring the metrics up to date with one ledger, which the caller keeps alive."""
        seen = self._seen.get(id(ledger))
        if seen is None:
            seen = self._seen[id(ledger)] = Ledger()
        before = seen.in_flight
        if ledger.received != seen.received:
            self._received.inc(ledger.received - seen.received)
            seen.received = ledger.received
        if ledger.inferred != seen.inferred:
            self._inferred.inc(ledger.inferred - seen.inferred)
            seen.inferred = ledger.inferred
        if ledger.failed != seen.failed:
            self._failed.inc(ledger.failed - seen.failed)
            seen.failed = ledger.failed
        for reason, count in ledger.dropped.items():
            if count != seen.dropped[reason]:
                self._dropped[reason].inc(count - seen.dropped[reason])
                seen.dropped[reason] = count
        if before != seen.in_flight:
            self._in_flight.inc(seen.in_flight - before)
