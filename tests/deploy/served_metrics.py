"""Lists the series of the service and their labels, read from the metric objects, not from `/metrics`."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from inference.engine.metrics import InferenceMetrics
from streamer.accounting.capacity_metrics import CapacityMetrics
from streamer.accounting.metrics import SupervisorMetrics, WorkerMetrics
from streamer.sampling.metrics import SamplingMetrics

_SUFFIXES = {Counter: ("_total",), Gauge: ("",), Histogram: ("_bucket", "_sum", "_count")}


def served_series() -> dict[str, set[str]]:
    """Return a mapping from the name of each series, as Prometheus stores it, to its label names."""
    series: dict[str, set[str]] = {}
    for owner in (
        WorkerMetrics(),
        CapacityMetrics(),
        InferenceMetrics(),
        SamplingMetrics(),
        SupervisorMetrics(),
    ):
        for metric in vars(owner).values():
            for kind, suffixes in _SUFFIXES.items():
                if isinstance(metric, kind):
                    labels = set(metric._labelnames)
                    for suffix in suffixes:
                        series[f"{metric._name}{suffix}"] = labels | (
                            {"le"} if suffix == "_bucket" else set()
                        )
    return series
