"""Watches a service's processes five times a second: memory, descriptors, threads, children."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.helpers.service import Service
from tests.helpers.waiting import wait_for

PERIOD_S = 0.2
_ROLES = (
    "inference.engine.process",
    "streamer.server.worker",
    "streamer.sampling.process",
    "streamer.decoding",
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of all processes of a service. Sizes are in bytes, summed by role."""

    at: float
    rss: dict[str, int] = field(default_factory=dict)
    fds: int = 0
    threads: int = 0
    processes: int = 0
    #: Bytes of files in /dev/shm, and of memory behind distinct memfds.
    shm: int = 0
    memfd: int = 0

    @property
    def total_rss(self) -> int:
        """Resident bytes of all processes."""
        return sum(self.rss.values())


def look(service: Service) -> Sample:
    """Measure the processes of a service now; a process that ends meanwhile is left out."""
    rss: dict[str, int] = defaultdict(int)
    fds = threads = processes = 0
    memfds: dict[int, int] = {}
    for process in [service.supervisor, *service.supervisor.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError):
            line = " ".join(process.cmdline())
            role = next((name for name in _ROLES if name in line), "other")
            rss[role] += process.memory_info().rss
            fds += process.num_fds()
            threads += process.num_threads()
            processes += 1
            _add_memfds(process.pid, memfds)
    shm = sum(entry.stat().st_size for entry in Path("/dev/shm").iterdir())  # noqa: S108 - looked at only
    return Sample(time.monotonic(), dict(rss), fds, threads, processes, shm, sum(memfds.values()))


def settled(service: Service) -> Sample:
    """Return the first of many measurements that finds the same counts as the one before it."""
    last = look(service)

    def is_settled() -> bool:
        nonlocal last
        time.sleep(0.5)
        earlier, last = last, look(service)
        return counts(earlier) == counts(last)

    wait_for(is_settled, "processes and descriptors settle")
    return last


def counts(sample: Sample) -> tuple[int, int, int]:
    """Return the numbers of processes, threads and descriptors."""
    return sample.processes, sample.threads, sample.fds


def uss_bytes(service: Service) -> int:
    """Return the memory that only the service's processes use, which their end would free."""
    total = 0
    for process in [service.supervisor, *service.supervisor.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().uss
    return total


def _add_memfds(pid: int, found: dict[int, int]) -> None:
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if str(path.readlink()).startswith("/memfd:"):
                status = path.stat()
                found[status.st_ino] = status.st_blocks * 512


class ProcessWatch:
    """Measures the processes of a service every ``period_s`` seconds until its ``with`` block ends."""

    def __init__(self, service: Service, *, period_s: float = PERIOD_S) -> None:
        self.samples: list[Sample] = []
        self._service = service
        self._period_s = period_s
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="process-watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(psutil.NoSuchProcess):
                self.samples.append(look(self._service))
            self._ending.wait(self._period_s)

    def growth(self, before: Sample) -> int:
        """Return by how many resident bytes the processes grew at most since ``before``.

        Moments in which there were more processes than before do not count: a process that has just been
        forked shares its memory with its parent, and both count it as resident.
        """
        return max(
            (
                each.total_rss - before.total_rss
                for each in self.samples
                if each.processes <= before.processes
            ),
            default=0,
        )


def slope(points: list[tuple[float, float]]) -> float:
    """Return the Theil-Sen slope: the median over all pairs, which is robust against single spikes."""
    slopes = sorted(
        (y2 - y1) / (x2 - x1) for i, (x1, y1) in enumerate(points) for x2, y2 in points[i + 1 :] if x2 > x1
    )
    return slopes[len(slopes) // 2] if slopes else 0.0
