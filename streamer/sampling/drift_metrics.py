"""What drift counts. A group is a label: 64 of them have their own, those that come later share one."""

from __future__ import annotations

import contextlib

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from streamer.drift.monitor import MAX_GROUPS

#: Why Evidently gave no answer, or a reference or a row could not be used.
FAILURES = ("missing", "timeout", "crashed", "malformed", "damaged")
OTHERS = "others"


class DriftMetrics:
    """Construct once, after `inference.telemetry.metrics.name_process`."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.detected = Counter(
            "data_drift_detected", "Episodes of drift, each counted once.", ["group"], registry=registry
        )
        self.taken = Counter("data_drift_rows", "Rows taken, of all groups.", registry=registry)
        self.active = self._gauge("active", "1 while a group is in drift.", registry)
        self.ratio = self._gauge(
            "score_ratio_max", "Greatest score by threshold of the last window; 1 and more is hot.", registry
        )
        self.rows = self._gauge("window_rows", "Rows in the last window.", registry)
        self.coverage = self._gauge("window_coverage", "Share of the last window that has rows.", registry)
        self.reference_age_s = Gauge(
            "data_drift_reference_age_seconds",
            "Age of the reference; -1 without.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self.check_age_s = Gauge(
            "data_drift_check_age_seconds",
            "Time since windows were judged last; -1 before.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self.check_s = Histogram(
            "drift_check_seconds",
            "Time of one round over all groups, Evidently's part included.",
            buckets=(0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 180),
            registry=registry,
        )
        self.failures = Counter(
            "drift_check_failures",
            "What kept a check from being made as it should.",
            ["reason"],
            registry=registry,
        )
        for reason in FAILURES:
            self.failures.labels(reason)
        self._known: set[str] = set()

    @staticmethod
    def _gauge(name: str, text: str, registry: CollectorRegistry) -> Gauge:
        return Gauge(f"data_drift_{name}", text, ["group"], registry=registry, multiprocess_mode="mostrecent")

    def label(self, group: str) -> str:
        """Return the label of a group; its counter exists from then on, at 0."""
        if group not in self._known:
            if len(self._known) >= MAX_GROUPS:
                return OTHERS
            self._known.add(group)
            self.detected.labels(group)
        return group

    def forget(self, group: str) -> None:
        """The group is no longer watched: its gauges would stand still."""
        for gauge in (self.active, self.ratio, self.rows, self.coverage):
            with contextlib.suppress(KeyError):
                gauge.labels(self.label(group)).set(0)
