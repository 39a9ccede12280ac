"""Defines the metrics of the inference process. Every label comes from a closed set."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from inference.core.metric_setup import count_log_lines
from inference.core.metric_value import Counter, Gauge, Histogram
from inference.models.model import ModelInfo

#: Histogram buckets in seconds, from an empty model to a large model on a slow CPU.
_RUN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)


class InferenceMetrics:
    """Holds the counters, gauges and histograms of one inference process, of the engine ``index``."""

    def __init__(self, index: int = 0) -> None:
        self.engine = str(index)
        registry = CollectorRegistry()
        count_log_lines(registry)
        self.run_s = Histogram(
            "object_detection_inference_duration_seconds",
            "Time of one model run, a batch, from filling the input to raw outputs.",
            ["version", "engine"],
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

    def forget(self, version: str, model: ModelInfo) -> None:
        """Publish that a model is not served any more."""
        self.model_info.labels(version, model.name, model.sha256[:12], model.family, model.provider).set(0)

    def describe(self, version: str, model: ModelInfo, *, fell_back: bool) -> None:
        """Publish the model and the provider of a version, and create its other series."""
        self.run_s.labels(version, self.engine)
        self.batch_size.labels(version)
        self.failures.labels(version)
        self.gpu_fallback.labels(version).set(fell_back)
        self.model_info.labels(version, model.name, model.sha256[:12], model.family, model.provider).set(1)
