"""What the observer counts; every label comes from a closed set."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from inference.telemetry.metrics import count_log_lines

#: Why a sample was taken; the first of its reasons counts.
REASONS = ("uncertainty", "flicker", "disagreement", "drift", "random", "user")
#: Why a candidate worth taking was not.
DROPS = ("duplicate", "budget", "spool_full", "disk_error", "damaged")
#: What became of an attempt to deliver; refused ten times while others were stored, a sample is dead.
RESULTS = ("stored", "failed", "dead")
#: What keeps a store from taking anything until somebody mends a setting.
BLOCKS = ("credentials", "denied", "no_bucket", "region", "clock")


class ObserverMetrics:
    """Counters of the observer; construct once, after `inference.telemetry.metrics.name_process`."""

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
            "Attempts to deliver a sample to the store, by result.",
            ["result"],
            registry=registry,
        )
        self.upload_s = Histogram(
            "active_learning_upload_seconds",
            "Time to deliver one sample, picture and description.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
            registry=registry,
        )
        self.spool_bytes = self._gauge("spool_bytes", "Bytes of samples that wait for the store.", registry)
        self.spool_items = self._gauge("spool_items", "Samples that wait for the store.", registry)
        self.spool_oldest_s = self._gauge(
            "spool_oldest_seconds", "How long the oldest of them has waited.", registry
        )
        self.breaker_open = self._gauge(
            "breaker_open", "1 while the store is tried once in a while only.", registry
        )
        self.blocked = Gauge(
            "active_learning_upload_blocked",
            "1 while a setting keeps the store from taking samples, by what is wrong.",
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
        """Account one attempt to deliver a sample."""
        self.uploads.labels(result).inc()
        if result == "stored":
            self.upload_s.observe(seconds)

    def held_back(self, *, is_open: bool, blocked: str) -> None:
        """Publish whether attempts are held back, and which setting is wrong; empty: none."""
        self.breaker_open.set(is_open)
        for reason in BLOCKS:
            self.blocked.labels(reason).set(reason == blocked)
