"""Sets up what the metrics of all processes share: their storage and the counter of dropped log lines.

The values are in a shared memory file (`metric_store`). A worker merges its parts to answer ``/metrics``.
Each part is named after the role of a process instead of its pid, so that a restarted process continues the
counts.
"""

from __future__ import annotations

import functools
import os

import prometheus_client
from prometheus_client import CollectorRegistry

from inference.core import metric_store
from inference.core.log_output import REASONS, count_dropped
from inference.core.metric_store import MetricStore
from inference.core.metric_value import Counter, Value

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
