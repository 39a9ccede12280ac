"""Measures what clients notice while the models of a running service change, and what that costs in memory.

Two workers serve the old model, ``codes_v1``, as v1, and the new one as v2. The new one is a copy of the old
one with another digest or, with ``--models bundled``, the larger ``codes_v2``. Clients of v1 POST images at a
fixed rate and keep 20 streams open: 8 live with JSON, 4 live with msgpack, 4 with mode ``all``, and 4 over
WebRTC. Under this load, four changes follow each other, all of the model that v1 serves:

- load: the new model in place of the old one;
- rollback: the old model, which is loaded again;
- promote: the new model, which is that of v2; the processes before stay loaded for a rollback;
- warm rollback: back to those processes.

Two lines for each change tell how long it took, and how many POSTs failed, streams were closed, and frames
had not exactly one outcome (not of WebRTC, whose frames are not numbered by the client) from opening the
streams to closing them. The longest pause between two results of a stream from the request to a second after
the change, and at least for five seconds, stands beside that of an equally long time before the request; a
ratio of 1.0 means that the change cannot be seen. Memory is the sum of the RSS of all processes: before the
change, its peak, and when it was within 10 % of that before again, or a minute after the change. For the warm
rollback it is compared with the memory before the promotion. ``busy`` is the share of all cores that the
service took before the change, and that everything else took, with the clients. If the sum is near 100 %,
pauses are those of a machine that is too slow for this load, so lower the rates. ``codes_v2`` takes much more
processor time than ``codes_v1``, and with ``--models null`` both models do nothing.

  make bench BENCH=version_change
  make bench BENCH=version_change ARGS="--models bundled --posts-per-s 15"
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import psutil

from bench.version_change_load import STREAMS, Load, longest_pause_s
from inference.models.manifest import manifest_path
from streamer.assets import MODELS_DIR
from tests.helpers.load import http_session
from tests.helpers.media import images
from tests.helpers.model_factory import null_model
from tests.helpers.service import Service

#: Names of the files of both models in their folder.
OLD, NEW = "old.onnx", "new.onnx"
#: Share of all cores that may be busy before pauses are those of a machine that is too slow.
SATURATED = 0.85
#: Results that arrive this long after the answer to a change still count as during it.
TAIL_S = 1.0
#: Shortest time in which pauses are compared: a warm rollback takes less than the time between two frames.
MIN_WINDOW_S = 5.0
#: Memory counts as back when it is at most this multiple of that before the change.
BACK = 1.1
MEMORY_INTERVAL_S = 0.25
#: How long memory is watched if the former processes stay loaded.
KEPT_S = 5.0


@dataclass(frozen=True, slots=True)
class Change:
    """Names a change, its route below ``/versions``, and the body of the request."""

    name: str
    route: str
    body: dict[str, Any] | None = None
    #: Whether memory is compared with that before the change before this one, whose processes were kept.
    takes_back_kept: bool = False


CHANGES = (
    Change("load", "v1/load", {"path": NEW}),
    Change("rollback", "rollback"),
    Change("promote", "promote"),
    Change("warm rollback", "rollback", takes_back_kept=True),
)


@dataclass(slots=True)
class Memory:
    """Watches the RSS of all processes of a service, in MB. Shared pages count once for each process."""

    before_mb: float
    #: What memory is compared with.
    reference_mb: float
    peak_mb: float = 0.0
    last_mb: float = 0.0
    #: Since when memory is back, in monotonic seconds; None while it is not.
    back_at: float | None = None

    async def watch(self, service: Service) -> None:
        """Read the memory again and again, until this task is cancelled."""
        while True:
            self.last_mb = await asyncio.to_thread(rss_mb, service)
            self.peak_mb = max(self.peak_mb, self.last_mb)
            if self.last_mb > BACK * self.reference_mb:
                self.back_at = None
            elif self.back_at is None:
                self.back_at = time.monotonic()
            await asyncio.sleep(MEMORY_INTERVAL_S)


def family(service: Service) -> list[psutil.Process]:
    return [service.supervisor, *service.supervisor.children(recursive=True)]


def rss_mb(service: Service) -> float:
    """Return the sum of the resident set sizes of all processes of the service in MB."""
    total = 0
    for process in family(service):
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end meanwhile
            total += process.memory_info().rss
    return total / 1e6


def cpu_s(service: Service) -> tuple[float, float]:
    """Return the processor seconds that the service and the whole machine have used so far."""
    own = 0.0
    for process in family(service):
        with contextlib.suppress(psutil.NoSuchProcess):
            own += sum(process.cpu_times()[:2])
    times = psutil.cpu_times()
    return own, sum(times) - times.idle - times.iowait - times.guest - times.guest_nice


@dataclass(frozen=True, slots=True)
class Options:
    """Holds the rates and times of a measurement."""

    fps: float
    posts_per_s: float
    quiet_s: float
    memory_s: float
    frames: list[bytes]


@dataclass(frozen=True, slots=True)
class Measured:
    """Holds what was measured of one change."""

    change: Change
    load: Load
    took_s: float
    #: Longest pauses of a stream before and during the change.
    pauses_s: tuple[float, float]
    #: Length of the time in which pauses were looked for, before and during the change.
    windows_s: tuple[float, float]
    memory: Memory
    #: When the change was answered, in monotonic seconds.
    done: float
    #: Whether the former processes stay loaded.
    kept: bool
    #: Shares of all cores that the service and everything else took before the change.
    busy: tuple[float, float]

    def lines(self) -> str:
        """Return the lines of this change."""
        before_s, during_s = self.pauses_s
        memory, load = self.memory, self.load
        if self.kept:
            state = "former processes stay loaded"
        elif memory.back_at is not None:
            state = f"back after {max(0.0, memory.back_at - self.done):.1f} s"
        else:
            state = f"not back after {load.end.at - self.done:.0f} s"
        failed, closed = load.failures.total(), load.closed.total()
        causes = ", ".join(f"{cause}: {count}" for cause, count in (load.failures + load.closed).items())
        short = "" if self.windows_s[0] >= self.windows_s[1] else f" (only {self.windows_s[0]:.1f} s before)"
        return (
            f"{self.change.name:13} {self.took_s:6.2f} s   {failed} of {load.posts} POSTs failed"
            f" ({load.failed_before} before the change), {closed} streams closed,"
            f" {load.unbalanced} frames without one outcome"
            f"{f' [{causes}]' if causes else ''}\n"
            f"{'':13} longest pause {before_s:.2f} → {during_s:.2f} s [{during_s / before_s:.2f}]"
            f" in {self.windows_s[1]:.1f} s{short}; RSS {memory.before_mb:.0f} → {memory.peak_mb:.0f} →"
            f" {memory.last_mb:.0f} MB, {state}; busy {self.busy[0]:.0%} + {self.busy[1]:.0%}\n"
        )


def write_models(kind: str, folder: Path) -> None:
    """Write the old and the new model: the bundled ones, ``same`` but for the digest, or ``null``."""
    if kind == "null":
        null_model(folder / OLD, objects=((8.0, 8.0, 40.0, 48.0, 0.9, 0),))
        null_model(folder / NEW, objects=((8.0, 8.0, 40.0, 48.0, 0.6, 0),))
        return
    for name, source in (
        (OLD, "codes_v1.onnx"),
        (NEW, "codes_v2.onnx" if kind == "bundled" else "codes_v1.onnx"),
    ):
        found = onnx.load(str(MODELS_DIR / source))
        found.doc_string = name
        onnx.save(found, str(folder / name))
        manifest = json.loads(manifest_path(MODELS_DIR / source).read_text())
        del manifest["sha256"]
        manifest_path(folder / name).write_text(json.dumps(manifest))


def progress(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


async def measure(service: Service, change: Change, options: Options, reference_mb: float | None) -> Measured:
    """Carry out one change under load. Memory is compared with ``reference_mb``, or with that before it."""
    load, url = Load(options.fps, options.posts_per_s, options.frames), service.http_url
    async with http_session() as session, asyncio.TaskGroup() as group:
        load.open(group, session, url)
        await load.until_all_have_results()

        progress(f"{change.name}: {STREAMS} streams are open, {options.quiet_s:g} s without a change")
        quiet_from, cores_s = time.monotonic(), psutil.cpu_count() or 1
        used_before = await asyncio.to_thread(cpu_s, service)
        await asyncio.sleep(options.quiet_s)
        used_after = await asyncio.to_thread(cpu_s, service)
        before_mb = await asyncio.to_thread(rss_mb, service)
        memory = Memory(before_mb, before_mb if reference_mb is None else reference_mb)
        watching = group.create_task(memory.watch(service))

        begun, load.failed_before = time.monotonic(), load.failures.total()
        available_s = (begun - quiet_from) * cores_s
        own = (used_after[0] - used_before[0]) / available_s
        busy = own, max(0.0, (used_after[1] - used_before[1]) / available_s - own)
        if sum(busy) > SATURATED:
            progress(
                f"{change.name}: the cores are {sum(busy):.0%} busy without a change, so pauses say little"
            )
        progress(f"{change.name}: changing")
        async with session.post(f"{url}/versions/{change.route}", json=change.body) as answer:
            body = await answer.json()
        if answer.status != 200:
            raise SystemExit(f"{change.name} was refused: {body}")
        done = time.monotonic()
        window_s = max(done - begun + TAIL_S, MIN_WINDOW_S)
        kept = body["rollback_is_warm"]
        progress(f"{change.name}: done after {done - begun:.2f} s, memory is watched")
        await asyncio.sleep(begun + window_s - time.monotonic())
        limit = done + (KEPT_S if kept else options.memory_s)
        while time.monotonic() < limit and (kept or memory.back_at is None):
            await asyncio.sleep(MEMORY_INTERVAL_S)
        watching.cancel()
        arrivals = load.arrivals()
        before_s = min(window_s, begun - quiet_from)
        pauses_s = (
            longest_pause_s(arrivals, begun - before_s, begun),
            longest_pause_s(arrivals, begun, begun + window_s),
        )
        load.end.at = time.monotonic()
    return Measured(change, load, done - begun, pauses_s, (before_s, window_s), memory, done, kept, busy)


async def measure_all(service: Service, options: Options) -> None:
    """Measure all changes, and print the lines of each."""
    former: Measured | None = None
    for change in CHANGES:
        taken_back = former if change.takes_back_kept else None
        found = await measure(
            service, change, options, None if taken_back is None else taken_back.memory.before_mb
        )
        sys.stdout.write(found.lines())
        sys.stdout.flush()
        former = found


def main() -> None:
    """Print two lines for each change."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", choices=("same", "bundled", "null"), default="same")
    parser.add_argument("--fps", type=float, default=1.0, help="frames per second of each stream")
    parser.add_argument("--posts-per-s", type=float, default=50.0, help="POSTs per second")
    parser.add_argument("--quiet-s", type=float, default=8.0, help="seconds under load before each change")
    parser.add_argument(
        "--memory-s", type=float, default=60.0, help="longest wait until memory is back, in seconds"
    )
    given = parser.parse_args()
    frames = images(8, (320, 240))
    options = Options(given.fps, given.posts_per_s, given.quiet_s, given.memory_s, frames)
    progress("starting the service")
    with tempfile.TemporaryDirectory() as folder:
        write_models(given.models, Path(folder))
        settings = {
            "WORKERS": "2",
            "SAMPLING": "False",
            "STREAM_MIN_FPS": "0",
            "MODEL_V1_PATH": f"{folder}/{OLD}",
            "MODEL_V2_PATH": f"{folder}/{NEW}",
        }
        with Service(settings) as service:
            asyncio.run(measure_all(service, options))


if __name__ == "__main__":
    main()
