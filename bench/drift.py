"""Measures the memory of the sampling process that monitors drift.

First, a real sampling process loads a reference with 64 groups, the largest number that is allowed. The
benchmark prints the resident memory of that process before and after. Then the benchmark itself passes rows
of ten simulated days to the code of the sampling process. The slope of its memory from the third day on shows
whether the code leaks: it should be close to 0 MB a day.

Run it with ``make bench BENCH=drift``.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from inference.ipc.shared_document import SharedDocument
from inference.ipc.shared_status import SharedStatus
from streamer.config.settings import load_settings
from streamer.drift.learned_reference import LearnedReference, publish
from streamer.drift.reference import Reference, learn
from streamer.sampling.drift_service import DriftService
from streamer.sampling.metrics import DriftMetrics
from tests.helpers.drift_rows import START, World, rows
from tests.helpers.service import Service
from tests.helpers.waiting import wait_for

DAYS = 10
DAY = 17_280
GROUPS = 64


async def ten_days(folder: Path) -> list[float]:
    """Return the resident memory in MB after each day."""
    settings = load_settings(
        samples_dir=folder, reference_data_path=folder / "r.json", drift_engine="builtin"
    )
    drift = DriftService(settings, DriftMetrics(), SharedDocument(), SharedStatus())
    await drift.open()
    world = World(1)
    learnt, _ = learn(list(rows(world.values(DAY))), 1800, 0.001)
    drift.monitor.set_reference(Reference({"gate": learnt}, "", ""))
    used = []
    for day in range(DAYS):
        for row in rows(world.values(DAY), START + (day + 2) * 86_400):
            drift.history.append(row)
            drift._handle(drift.monitor.add(row))
        used.append(psutil.Process().memory_info().rss / 1e6)
    await drift.close()
    return used


def full_reference(path: Path) -> None:
    """Write a reference of 64 groups with as many rows as it may have."""
    found = learn(list(rows(World(1).values(8000))), 1800, 0.001, 40_000 // GROUPS)
    learned = LearnedReference({f"camera-{number}": found for number in range(GROUPS)})
    publish(path, learned, window_s=1800, alpha=0.001, interval_s=5)


def sampling_process_mb(folder: Path) -> tuple[float, float]:
    """Return the resident MB of a real sampling process, without a reference and with the full one."""
    path = folder / "r.json"
    with Service({"REFERENCE_DATA_PATH": str(path)}, bundled=True) as service:
        wait_for(lambda: service.get_json("/health")["sampling"] == "on")
        time.sleep(2)
        bare = service.sampling_process.memory_info().rss / 1e6
        full_reference(path)
        wait_for(
            lambda: (
                len((service.get_json("/drift/status").get("reference") or {"groups": ()})["groups"])
                == GROUPS
            ),
            "a reference of every group",
            120,
        )
        time.sleep(2)
        return bare, service.sampling_process.memory_info().rss / 1e6


def main() -> None:
    """Print both measurements."""
    with tempfile.TemporaryDirectory() as name:
        bare, full = sampling_process_mb(Path(name))
        print(f"sampling process: {bare:.0f} MB, with a reference of {GROUPS} groups {full:.0f} MB")  # noqa: T201
    with tempfile.TemporaryDirectory() as name:
        used = asyncio.run(ten_days(Path(name)))
    slope = np.polyfit(np.arange(2, DAYS), used[2:], 1)[0]
    print("resident MB after each of ten days:", " ".join(f"{mb:.1f}" for mb in used))  # noqa: T201
    print(f"slope from the third day on: {slope:+.3f} MB a day")  # noqa: T201


if __name__ == "__main__":
    main()
