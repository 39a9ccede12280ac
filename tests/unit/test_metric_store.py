"""Tests that processes share metrics in one memory file, and that no full store or disk ends them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from inference.core.metric_setup import STORE_VARIABLE
from inference.core.metric_store import SLOT_BYTES, SLOTS_PER_PROCESS, MetricStore
from tests.helpers.service import ROOT


def run(store: MetricStore, role: str, code: str) -> str:
    """Run code in a process called ``role`` that keeps its metrics in the store; return what it prints."""
    head = f"""
        from pathlib import Path
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        from inference.core.metric_setup import name_process
        from streamer.accounting.merged_metrics import render_metrics
        name_process({role!r})
        registry = CollectorRegistry()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code)],
        cwd=ROOT,
        env=os.environ | {STORE_VARIABLE: str(store.fd), "PROMETHEUS_MULTIPROC_DIR": "/nonexistent"},
        pass_fds=[store.fd],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


COUNT = """
    counted = Counter("things", "Things.", ["kind"], registry=registry)
    counted.labels("a").inc(2)
    timed = Histogram("times", "Times.", buckets=(1, 2), registry=registry)
    timed.observe(1.5)
    Gauge("least", "Least.", registry=registry, multiprocess_mode="min").set({least})
"""
SHOW = "print(render_metrics(Path('/nonexistent')).decode())"


def test_values_of_all_processes_are_merged_and_outlive_them() -> None:
    store = MetricStore(processes=3)
    run(store, "worker-0", COUNT.format(least=5))
    run(store, "worker-1", COUNT.format(least=3))
    run(store, "worker-0", COUNT.format(least=4))  # replaces the first worker-0
    text = run(store, "reader", SHOW)
    assert 'things_total{kind="a"} 6.0' in text
    assert 'times_bucket{le="2.0"} 3.0' in text
    assert "times_count 3.0" in text
    assert "least 3.0" in text
    os.close(store.fd)


def test_more_series_than_there_is_room_for_cost_only_those() -> None:
    store = MetricStore(processes=1)
    code = """
        import logging
        from inference.core import log_limit
        from inference.core.log_output import use_handler
        from inference.core.metric_setup import count_log_lines

        # A log that counts its lines in the store: the one of a full store must not wait for itself.
        log_limit.INTERVAL_S = 3600.0
        count_log_lines(registry)
        use_handler(logging.StreamHandler(), "info")
        for _ in range(2):
            logging.getLogger("inference.metric_store").error(
                "%s is full: further series of this process are not published", "it"
            )
        counted = Counter("things", "Things.", ["kind"], registry=registry)
        counted.labels("first").inc()
        for number in range(20000):
            counted.labels(str(number)).inc()
            counted.labels(str(number)).inc()
        counted.labels("first").inc()
        print(counted.labels("19999")._value.get())
    """
    assert run(store, "worker-0", code) == "2.0\n"
    text = run(store, "reader", SHOW)
    assert 'things_total{kind="first"} 2.0' in text
    assert 'things_total{kind="0"} 2.0' in text
    assert len(store.read("counter_worker-0.db")) <= SLOT_BYTES
    os.close(store.fd)


def test_files_beyond_the_slots_are_refused_clearly() -> None:
    store = MetricStore(processes=1)
    for number in range(SLOTS_PER_PROCESS):
        store.map(f"counter_{number}.db").close()
    try:
        store.map("counter_more.db")
    except OSError as error:
        assert "no slot left" in str(error)
    else:
        raise AssertionError("a slot too many")
    os.close(store.fd)
