"""Carries finished predict requests into the metrics."""

from __future__ import annotations

from inference.telemetry.metric_value import Counter, Histogram
from streamer.accounting.metrics import WorkerMetrics

#: Others are one label, whatever was asked for.
VERSIONS = ("v1", "v2")


class RequestMetrics:
    """Counts and times requests by model version and status."""

    def __init__(self, metrics: WorkerMetrics) -> None:
        self._metrics = metrics
        #: Kept, because looking labels up costs more than counting.
        self._series: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    def observe(self, version: str, status: int, seconds: float) -> None:
        """Account one answer."""
        known = version if version in VERSIONS else "unknown"
        series = self._series.get((known, status))
        if series is None:
            series = self._metrics.requests.labels(known, str(status)), self._metrics.request_s.labels(known)
            self._series[known, status] = series
        counted, timed = series
        counted.inc()
        timed.observe(seconds)
