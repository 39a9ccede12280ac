"""Defines the metrics of the sampling process.

Every label has a fixed set of values, except that each of the first 64 drift groups has a value of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from inference.core.metric_setup import count_log_lines
from streamer.drift.monitor import MAX_GROUPS

#: Why a sample was taken. A sample with several reasons counts under the first.
REASONS = ("uncertainty", "flicker", "disagreement", "drift", "random", "user")
#: Why a candidate that was worth taking was dropped.
DROPS = ("duplicate", "budget", "report_budget", "spool_full", "disk_error", "damaged")
#: Results of an attempt to deliver. A sample is dead when the store has refused it ten times and has accepted
#: others meanwhile.
RESULTS = ("stored", "failed", "dead")
#: Why a store accepts nothing until a person corrects a setting.
BLOCKS = ("credentials", "denied", "no_bucket", "addressing", "checksum", "region", "clock")
#: Why Evidently returned no result, or why a reference or a row could not be used.
FAILURES = ("missing", "timeout", "crashed", "malformed", "damaged")
#: Label of all drift groups beyond the first 64.
OTHERS = "others"


class SamplingMetrics:
    """Holds the metrics of samples. Construct once, after `inference.core.metric_setup.name_process`."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        count_log_lines(registry)
        self.samples = Counter(
            "active_learning_samples",
            "Samples accepted: they are on the disk, by the first of their reasons.",
            ["reason"],
            registry=registry,
        )
        self.drops = Counter(
            "active_learning_dropped",
            "Candidates worth taking that were not, by reason.",
            ["reason"],
            registry=registry,
        )
        self.uploads = Counter(
            "active_learning_uploads",
            "Attempts to deliver a sample, or a file of drift rows, to the store, by result.",
            ["result"],
            registry=registry,
        )
        self.upload_s = Histogram(
            "active_learning_upload_seconds",
            "Time to deliver one sample, image and sidecar.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
            registry=registry,
        )
        self.spool_bytes = self._gauge(
            "spool_bytes", "Bytes of samples and drift rows that wait for the store.", registry
        )
        self.spool_items = self._gauge(
            "spool_items", "Samples and files of drift rows that wait for the store.", registry
        )
        self.spool_oldest_s = self._gauge(
            "spool_oldest_seconds", "How long the oldest of them has waited.", registry
        )
        self.breaker_open = self._gauge(
            "breaker_open", "1 while deliveries are paused after failures of the store.", registry
        )
        self.blocked = Gauge(
            "active_learning_upload_blocked",
            "1 while a wrong setting keeps the store from accepting samples, by cause.",
            ["reason"],
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        for reason in BLOCKS:
            self.blocked.labels(reason).set(0)
        for reason in REASONS:
            self.samples.labels(reason)
        for reason in DROPS:
            self.drops.labels(reason)
        for result in RESULTS:
            self.uploads.labels(result)
        self.breaker_open.set(0)

    @staticmethod
    def _gauge(name: str, text: str, registry: CollectorRegistry) -> Gauge:
        return Gauge(f"active_learning_{name}", text, registry=registry, multiprocess_mode="mostrecent")

    def delivered(self, result: str, seconds: float) -> None:
        """Count one attempt to deliver a sample."""
        self.uploads.labels(result).inc()
        if result == "stored":
            self.upload_s.observe(seconds)

    def held_back(self, *, is_open: bool, blocked: str) -> None:
        """Set whether deliveries are paused, and which setting is wrong (one of ``BLOCKS``, or empty)."""
        self.breaker_open.set(is_open)
        for reason in BLOCKS:
            self.blocked.labels(reason).set(reason == blocked)


class GrowingReference(NamedTuple):
    """Says how large a growing reference is, and how old."""

    days: float
    #: Time since the end of its newest day.
    newest_age_s: float


class DriftMetrics:
    """Holds the metrics of drift, by group.

    Construct once, after `inference.core.metric_setup.name_process`.
    """

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.detected = Counter(
            "data_drift_detected", "Episodes of drift, each counted once.", ["group"], registry=registry
        )
        self.taken = Counter("data_drift_rows", "Rows taken, of all groups.", registry=registry)
        self.row_files = Counter(
            "data_drift_row_files", "Files of rows accepted for the store (DRIFT_ROWS).", registry=registry
        )
        self.active = self._gauge("active", "1 while a group is in drift.", registry)
        self.ratio = self._gauge(
            "score_ratio_max",
            "Greatest ratio of score to threshold in the last window; 1 or more is flagged.",
            registry,
        )
        self.rows = self._gauge("window_rows", "Rows in the last window.", registry)
        self.coverage = self._gauge("window_coverage", "Share of the last window that has rows.", registry)
        self._days = self._gauge(
            "reference_days", "Days that a growing reference holds (DRIFT_ROLLING_DAYS).", registry
        )
        self._newest_age_s = self._gauge(
            "reference_newest_age_seconds",
            "Time since the end of the newest day of a growing reference; it stands still above three days.",
            registry,
        )
        #: Labels of growing references.
        self._growing: set[str] = set()
        self.reference_age_s = Gauge(
            "data_drift_reference_age_seconds",
            "Age of the reference; -1 without.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self.check_age_s = Gauge(
            "data_drift_check_age_seconds",
            "Time since windows were last checked; -1 before the first check.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self.check_s = Histogram(
            "drift_check_seconds",
            "Time of one round of checks over all groups, including Evidently.",
            buckets=(0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 180),
            registry=registry,
        )
        self.failures = Counter(
            "drift_check_failures",
            "Failures of Evidently, of references and of rows, by reason.",
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
        """Return the label of a group, and make its counter visible at 0."""
        if group not in self._known:
            if len(self._known) >= MAX_GROUPS:
                return OTHERS
            self._known.add(group)
            self.detected.labels(group)
        return group

    def show_growing(self, references: Mapping[str, GrowingReference]) -> None:
        """Set how large and how old the growing references of these groups are; no other group has one."""
        days: dict[str, float] = {}
        age_s: dict[str, float] = {}
        for group, reference in references.items():
            label = self.label(group)
            # Groups that share a label show the smallest and the oldest reference.
            days[label] = min(reference.days, days.get(label, reference.days))
            age_s[label] = max(reference.newest_age_s, age_s.get(label, 0.0))
        for label in self._growing | days.keys():
            self._days.labels(label).set(days.get(label, 0.0))
            self._newest_age_s.labels(label).set(age_s.get(label, 0.0))
        self._growing = set(days)

    def forget(self, group: str) -> None:
        """Reset the gauges of a group that is no longer monitored; otherwise they would keep their values."""
        for gauge in (self.active, self.ratio, self.rows, self.coverage):
            with contextlib.suppress(KeyError):
                gauge.labels(self.label(group)).set(0)
