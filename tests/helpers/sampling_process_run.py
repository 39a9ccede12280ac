"""Runs only the sampling process, as the supervisor starts it, and sends it images that all differ."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import TracebackType

from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from inference.ipc import unix_socket as address
from inference.ipc.shared_document import SharedDocument
from inference.ipc.shared_status import SharedStatus
from streamer.config.child_environment import ChildEnvironment
from streamer.config.settings import load_settings
from streamer.sampling.candidate import SampleCandidate
from streamer.sampling.process_handle import SamplingStatus
from streamer.sampling.sample_sender import SampleSender
from tests.helpers.candidates import candidate
from tests.helpers.waiting import wait_for
from tests.unit.images import encode, scene, with_jpeg_segment

ROOT = Path(__file__).resolve().parents[2]
_IMAGE = encode(scene(640, 480))


def reported(number: int) -> SampleCandidate:
    """Return a candidate that is always accepted; its image bytes differ from all other candidates."""
    data = with_jpeg_segment(_IMAGE, 0xFE, f"number {number}".encode())
    return candidate(0.5, data=data, seq=number, reported=True, width=640, height=480)


class SamplingProcessRun:
    """Runs a sampling process within ``with``; tests may call ``kill()`` and ``start()`` repeatedly."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder / "samples"
        self._metrics = folder / "metrics"
        self._metrics.mkdir()
        self._environment = os.environ | environment | {"PROMETHEUS_MULTIPROC_DIR": str(self._metrics)}
        fields = {name.lower(): value for name, value in environment.items() if not name.startswith("AWS_")}
        budgets = dict.fromkeys(
            ("samples_stream_per_hour", "samples_per_hour", "samples_per_day", "samples_reports_per_hour"),
            10**9,
        )
        self._settings = load_settings(
            samples_dir=self.folder,
            reference_data_path=folder / "reference.json",
            samples_day_bytes=1 << 40,
            samples_store="s3",
            **budgets,
            **fields,
        )
        self._given = ChildEnvironment(self._settings, self._settings)
        self._listener = address.listen(socket.SOCK_STREAM)
        self._shared_status = SharedStatus()
        self._page = SharedDocument()
        self.lost: Counter[str] = Counter()
        self._sender = SampleSender(address.address_of(self._listener), self._count)
        self._process: subprocess.Popen[bytes] | None = None
        self._log = (folder / "log").open("ab")
        self.log_path = folder / "log"

    def _count(self, reason: str) -> None:
        self.lost[reason] += 1

    def __enter__(self) -> SamplingProcessRun:
        self._sender.start()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._sender.close()
        self._listener.close()
        self._shared_status.close()
        self._page.close()
        self._given.close()
        self._log.close()

    def start(self) -> None:
        """Start a process; it accepts candidates once ``wait_on`` has returned."""
        self._shared_status.post("sampling", SamplingStatus.STARTING)
        self._shared_status.post("ending", 0)
        fds = (self._listener.fileno(), self._shared_status.fd, self._page.fd)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "streamer.sampling.process", *map(str, fds)],
            cwd=ROOT,
            env=self._given.variables | self._environment,
            pass_fds=(*fds, *self._given.descriptors),
            stderr=self._log,
        )

    def wait_on(self) -> None:
        """Wait until the spool is open."""
        wait_for(lambda: self._shared_status.read("sampling") == SamplingStatus.ON)

    def submit(self, number: int) -> None:
        """Submit one candidate."""
        self._sender.submit(reported(number))

    @property
    def waiting(self) -> int:
        """Number of candidates that the process has not taken yet."""
        return self._sender._queue.qsize()

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """Shut the process down cleanly; return its exit code."""
        assert self._process is not None
        self._shared_status.post("ending", 1)
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)

    def spooled(self) -> set[str]:
        """Return the hashes of the complete samples in the spool."""
        return spooled(self.folder)

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels."""
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(self._metrics))  # type: ignore[no-untyped-call]
        return sum(
            sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


def spooled(folder: Path) -> set[str]:
    """Return the hashes of the complete samples in the spool of a folder."""
    ready = folder / ".spool" / "ready"
    if not ready.is_dir():
        return set()
    names = [path.name for path in ready.iterdir()]
    whole = {n[:-4] for n in names if n.endswith(".bin")} & {n[:-5] for n in names if n.endswith(".json")}
    return {name.rpartition("_")[2].partition("-")[0] for name in whole}
