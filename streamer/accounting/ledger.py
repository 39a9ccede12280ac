"""Defines the ledger of a stream, and adds ledgers and finished requests to the metrics."""

from __future__ import annotations

import collections
import functools
from dataclasses import dataclass, field
from typing import NamedTuple

from inference.core.detections import Boxes
from inference.core.metric_value import Counter, Gauge, Histogram
from streamer.accounting.metrics import WorkerMetrics
from streamer.protocol.wire import DropReason


@dataclass(slots=True)
class Ledger:
    """Counts the outcomes of the frames of one stream: received = inferred + dropped + failed + in flight."""

    received: int = 0
    inferred: int = 0
    failed: int = 0
    dropped: collections.Counter[DropReason] = field(default_factory=collections.Counter)

    @property
    def in_flight(self) -> int:
        """Number of frames without an outcome so far."""
        return self.received - self.inferred - self.failed - self.dropped.total()


#: Model versions with a label value of their own; all others are counted as `unknown`.
VERSIONS = ("v1", "v2")


@dataclass(slots=True)
class _Reported:
    """Holds the counts of one ledger that the metrics already contain."""

    received: int = 0
    inferred: int = 0
    failed: int = 0
    #: Number of drops for all reasons, then for each reason.
    drops: int = 0
    dropped: dict[DropReason, int] = field(default_factory=dict)
    in_flight: int = 0


class _Series(NamedTuple):
    """Holds the series of one transport and version, which all of its streams share."""

    received: Counter
    inferred: Counter
    failed: Counter
    in_flight: Gauge
    dropped: dict[DropReason, Counter]


@functools.lru_cache(maxsize=16)
def _series_of(metrics: WorkerMetrics, transport: str, version: str) -> _Series:
    labels = transport, version
    return _Series(
        metrics.received.labels(*labels),
        metrics.inferred.labels(*labels),
        metrics.failed.labels(*labels),
        metrics.in_flight.labels(*labels),
        {reason: metrics.dropped.labels(*labels, reason.value) for reason in DropReason},
    )


class FrameCounters:
    """Adds to the metrics what has changed in a ledger since the last call."""

    __slots__ = ("_last", "_last_seen", "_seen", "_series")

    def __init__(self, metrics: WorkerMetrics, transport: str, version: str) -> None:
        self._series = _series_of(metrics, transport, version)
        #: What has been added so far, by the ``id`` of the ledger, because ledgers are mutable.
        self._seen: dict[int, _Reported] = {}
        #: The ledger of the last call; None before the first.
        self._last: Ledger | None = None
        self._last_seen = _Reported()

    def _look_up(self, ledger: Ledger) -> _Reported:
        self._last = ledger
        self._last_seen = self._seen.setdefault(id(ledger), _Reported())
        return self._last_seen

    def account(self, ledger: Ledger) -> None:
        """Bring the metrics up to date with one ledger, which the caller keeps alive."""
        # Most connections have one stream, so the ledger is usually the one of the last call.
        seen = self._last_seen if ledger is self._last else self._look_up(ledger)
        drops = sum(ledger.dropped.values()) if ledger.dropped else 0
        in_flight = ledger.received - ledger.inferred - ledger.failed - drops
        if ledger.received != seen.received:
            self._series.received.inc(ledger.received - seen.received)
            seen.received = ledger.received
        if ledger.inferred != seen.inferred:
            self._series.inferred.inc(ledger.inferred - seen.inferred)
            seen.inferred = ledger.inferred
        if ledger.failed != seen.failed:
            self._series.failed.inc(ledger.failed - seen.failed)
            seen.failed = ledger.failed
        if drops != seen.drops:
            seen.drops = drops
            for reason, count in ledger.dropped.items():
                before = seen.dropped.get(reason, 0)
                if count != before:
                    self._series.dropped[reason].inc(count - before)
                    seen.dropped[reason] = count
        if in_flight != seen.in_flight:
            self._series.in_flight.inc(in_flight - seen.in_flight)
            seen.in_flight = in_flight


class RequestCounters:
    """Counts and times requests by model version and status."""

    def __init__(self, metrics: WorkerMetrics) -> None:
        self._metrics = metrics
        self.traces = metrics.traces
        #: Label look-ups are cached, because they cost more than counting.
        self._series: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def observe(self, version: str, status: int, seconds: float) -> None:
        """Count one answer."""
        known = version if version in VERSIONS else "unknown"
        series = self._series.get((known, status))
        if series is None:
            series = self._metrics.requests.labels(known, str(status)), self._metrics.request_s.labels(known)
            self._series[known, status] = series
        counted, timed = series
        counted.inc()
        timed.observe(seconds)

    def count_boxes(self, version: str, labels: tuple[str, ...], boxes: Boxes) -> None:
        """Count the boxes of one image."""
        self._metrics.boxes.count(version, labels, boxes)
