"""Defines the metrics of reading codes, which exist only in a service with `READ_CODES`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from inference.core.metric_value import Counter, Histogram

#: Outcomes of readings. ``late``: the time for a posted image was over; ``busy``: no decoder was idle;
#: ``failed``: the decoder ended, or did not read the image.
READINGS = ("done", "late", "busy", "failed")
_BUCKETS_S = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class CodeMetrics:
    """Counts readings of one worker; create it once, after `inference.core.metric_setup.name_process`."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._readings = Counter(
            "object_detection_code_readings",
            "Images and frames whose codes were to be read, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self._codes = Counter(
            "object_detection_codes",
            "Boxes of codes that a decoder tried to read, by whether it found a text.",
            ["result"],
            registry=registry,
        )
        self._seconds = Histogram(
            "object_detection_code_reading_duration_seconds",
            "Time of a reading in its decoder, including decoding the image.",
            buckets=_BUCKETS_S,
            registry=registry,
        )
        for outcome in READINGS:
            self._readings.labels(outcome)
        for result in ("read", "unread"):
            self._codes.labels(result)

    def count(self, outcome: str) -> None:
        """Count a reading by its outcome, one of `READINGS`."""
        self._readings.labels(outcome).inc()

    def observe(self, seconds: float, read: int, unread: int) -> None:
        """Record what an answered reading took, and how many codes it read and did not read."""
        self._seconds.observe(seconds)
        self._codes.labels("read").inc(read)
        self._codes.labels("unread").inc(unread)
