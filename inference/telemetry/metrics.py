"""Metrics of the inference process. Every label comes from a closed set.

The values are in a shared memory file (`metric_store`), which ``/metrics`` of the workers merges. Its parts
are named after the role of a process instead of its pid, so that a restarted process continues the counts.
"""

from __future__ import annotations

import functools
import os

import prometheus_client
from prometheus_client import CollectorRegistry

from inference.models.model import ModelInfo
from inference.telemetry import metric_store
from inference.telemetry.log_output import REASONS, count_dropped
from inference.telemetry.metric_store import MetricStore
from inference.telemetry.metric_value import Counter, Gauge, Histogram, Value

#: Seconds, from an empty model to a large model on a slow CPU.
_RUN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)


#: Environment variable with the descriptor of the `MetricStore` of the replica.
STORE_VARIABLE = "STREAMER_METRICS_FD"


def name_process(role: str) -> None:
    """Make this process write its metrics under ``role``; call once, before any metric is made.

    Under a supervisor the values are in its `MetricStore`, otherwise in files in PROMETHEUS_MULTIPROC_DIR.
    """
    values = prometheus_client.values
    if STORE_VARIABLE not in os.environ and metric_store.current() is None:
        values.ValueClass = values.MultiProcessValue(lambda: role)  # type: ignore[no-untyped-call]
        return
    if metric_store.current() is None:
        metric_store.use(MetricStore(fd=int(os.environ[STORE_VARIABLE])))
    values.ValueClass = functools.partial(Value, role)


def count_log_lines(registry: CollectorRegistry) -> None:
    """Count dropped log lines by reason. Call it once, with the registry of the process."""
    lines = Counter(
        "object_detection_log_lines_dropped",
        "Log lines that were not written: more than one a second of their kind, or nobody read them.",
        ["reason"],
        registry=registry,
    )
    series = {reason: lines.labels(reason) for reason in REASONS}
    count_dropped(lambda reason: series[reason].inc())


class InferenceMetrics:
    """Counters and histograms of one inference process."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        count_log_lines(registry)
        self.run_s = Histogram(
            "object_detection_inference_duration_seconds",
            "Time of one model run, a batch, from filling the input to raw outputs.",
            ["version"],
            buckets=_RUN_BUCKETS_S,
            registry=registry,
        )
        self.batch_size = Histogram(
            "object_detection_batch_size",
            "Items per model run.",
            ["version"],
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self.batches = Counter(
            "object_detection_batches_total",
            "Model runs by why the batch left with its size.",
            ["version", "reason"],
            registry=registry,
        )
        self.failures = Counter(
            "object_detection_inference_failures_total",
            "Items on which the model raised, alone.",
            ["version"],
            registry=registry,
        )
        self.model_info = Gauge(
            "object_detection_model_info",
            "1 for each served model.",
            ["version", "name", "sha256", "family", "provider"],
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self.model_kept = Gauge(
            "object_detection_model_kept",
            "1 where a model is served from a copy because its file has changed or gone since the start.",
            ["version"],
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self.gpu_fallback = Gauge(
            "object_detection_gpu_fallback",
            "1 where there is an NVIDIA driver and DEVICE=auto ended up on the CPU all the same.",
            ["version"],
            registry=registry,
            multiprocess_mode="mostrecent",
        )

    def describe(self, version: str, model: ModelInfo, *, fell_back: bool) -> None:
        """Publish the model and the provider of a version, and create its other series."""
        self.run_s.labels(version)
        self.batch_size.labels(version)
        self.failures.labels(version)
        self.gpu_fallback.labels(version).set(fell_back)
        self.model_info.labels(version, model.name, model.sha256[:12], model.family, model.provider).set(1)
