"""Holds a number of a metric in the shared store, and metric classes faster than those of prometheus_client.

Each POST changes some 17 numbers. The classes of prometheus_client make ten function calls for each change,
which together would be a sixth of all function calls that a worker makes for a POST.
"""

from __future__ import annotations

import bisect
import threading
from typing import Any

import prometheus_client
from prometheus_client.mmap_dict import mmap_key

from inference.core import metric_store

#: Any thread may change a value, because any thread may log and log lines are counted.
_LOCK = threading.Lock()


class Value:
    """Holds a number that all processes can read, with the interface of a value of `prometheus_client`."""

    __slots__ = ("_cells", "_index", "_value")

    def __init__(
        self,
        role: str,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: list[str],
        labelvalues: list[str],
        help_text: str,
        multiprocess_mode: str = "",
        **_kwargs: Any,
    ) -> None:
        """Create the number. ``role`` names the process; `prometheus_client` passes the other arguments."""
        file = f"{typ}_{multiprocess_mode}" if typ == "gauge" else typ
        key = mmap_key(metric_name, name, labelnames, labelvalues, help_text)
        with _LOCK:
            self._cells, self._index = metric_store.own_file(f"{file}_{role}.db").cells(key)
        self._value = self._cells[self._index]

    def inc(self, amount: float) -> None:
        """Add ``amount``."""
        with _LOCK:
            # Writing eight aligned bytes is atomic, so no reader sees a partial value.
            self._cells[self._index] = self._value = self._value + amount

    def inc_with(self, amount: float, bucket: Value) -> None:
        """Add ``amount``, and 1 to the bucket that it falls into."""
        with _LOCK:
            self._cells[self._index] = self._value = self._value + amount
            bucket._cells[bucket._index] = bucket._value = bucket._value + 1.0

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Replace the number."""
        with _LOCK:
            self._cells[self._index] = self._value = float(value)
            self._cells[self._index + 1] = timestamp or 0.0

    def get(self) -> float:
        """Return the number."""
        return self._value

    def set_exemplar(self, exemplar: object) -> None:
        """Do nothing: exemplars are not kept."""

    def get_exemplar(self) -> None:
        """Return None: exemplars are not kept."""


class Counter(prometheus_client.Counter):
    """A counter without exemplars."""

    def inc(self, amount: float = 1, exemplar: object = None) -> None:
        """Add ``amount``. Raises ValueError if it is negative."""
        if amount < 0:
            raise ValueError("counters only go up")
        self._value.inc(amount)


class Histogram(prometheus_client.Histogram):
    """A histogram without exemplars."""

    def observe(self, amount: float, exemplar: object = None) -> None:
        """Count one observation."""
        bucket, total = self._buckets[bisect.bisect_left(self._upper_bounds, amount)], self._sum
        try:
            total.inc_with(amount, bucket)
        except AttributeError:  # a value of prometheus_client, because there is no store, as in tests
            total.inc(amount)
            bucket.inc(1)


class Gauge(prometheus_client.Gauge):
    """A gauge with fast ``inc`` and ``dec``."""

    def inc(self, amount: float = 1) -> None:
        """Add ``amount``."""
        self._value.inc(amount)

    def dec(self, amount: float = 1) -> None:
        """Subtract ``amount``."""
        self._value.inc(-amount)
