"""Merges the metrics of all processes of a replica, for ``GET /metrics`` and ``GET /versions``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from inference.core import metric_store


class _Stored(Collector):
    """Collects the metrics of all processes from the shared store."""

    def collect(self) -> Iterable[Metric]:
        """Return the merged metrics."""
        store = metric_store.current()
        names = store.names() if store is not None else []
        return MultiProcessCollector.merge(names)  # type: ignore[no-untyped-call, no-any-return]


def merge_metrics(directory: Path) -> CollectorRegistry:
    """Return a registry that collects the merged metrics, from the store or else from ``directory``."""
    registry = CollectorRegistry()
    if metric_store.current() is None:
        MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]
    else:
        registry.register(_Stored())
    return registry


def render_metrics(directory: Path) -> bytes:
    """Return the exposition text of the merged metrics."""
    return generate_latest(merge_metrics(directory))
