"""Compares ``streamer simulate streams`` with the real service on this machine, at three loads.

First the parts are measured: the run times and wake-ups as `streamer models check` measures them, what the
service uses without a stream, and the processor time that a frame takes in decoders, in the worker's event
loop, in the inference process and in the client, at a light load. No value is adjusted to the outcome. Then
cameras send 50, 100 and 200 percent of the computed capacity to the service, and the same cameras are
simulated with these values. Each line gives both figures and their ratio, simulated / measured. For drops it
gives the difference in percentage points, because a ratio of two small shares says little. The last line says
whether all ratios are within 15 percent.

The load client runs on the same cores, so its processor time is part of the simulation. Run it on an idle
machine with ``make bench BENCH=simulation``.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from bench.camera_load import run_cameras
from streamer.simulation.streams.camera import StreamRecord
from streamer.simulation.streams.report import Report, percentile
from streamer.simulation.streams.run_times import RunTimes, read_run_times
from streamer.simulation.streams.scenario import Cameras, Group, Machine, Mix, Scenario, ServiceSettings
from streamer.simulation.streams.simulation import simulate
from tests.helpers.media import images, model
from tests.helpers.model_factory import null_model
from tests.helpers.service import ROOT, Service

#: Loads in parts of the computed capacity.
LOADS = (0.5, 1.0, 2.0)
#: Frames per second and seconds of the light load at which processor time is measured.
LIGHT_FPS, LIGHT_S = 10.0, 10.0
#: Seconds for which the service is observed without streams.
IDLE_S = 5.0
#: Largest deviation of a ratio from 1 that counts as agreement.
AGREES = 0.15
RAMP_S, SETTLE_S = 2.0, 6.0
#: Simulations of each load, with different seeds; their medians are compared.
SEEDS = 3


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used, in seconds; 0 if it has gone."""
    try:
        # The clock id of a process, as in clock_getcpuclockid(3) and the kernel's posix-timers.h.
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


@dataclass(slots=True)
class ProcessorTime:
    """Holds the processor seconds that the parts of a service and this process have used so far."""

    decoders: float
    worker: float
    inference: float
    client: float

    @classmethod
    def now(cls, service: Service) -> ProcessorTime:
        """Read the clocks of all processes."""
        (worker,) = service.workers
        children: list[psutil.Process] = worker.children(recursive=True)
        return cls(
            sum(cpu_s(child.pid) for child in children),
            cpu_s(worker.pid),
            cpu_s(service.inference.pid),
            time.process_time(),
        )

    def per_frame_ms(self, before: ProcessorTime, frames: int) -> ProcessorTime:
        """Return the milliseconds that each of ``frames`` frames has taken since ``before``."""
        return ProcessorTime(
            *(
                (getattr(self, name) - getattr(before, name)) / frames * 1e3
                for name in ("decoders", "worker", "inference", "client")
            )
        )


def check_times(path: Path, folder: Path) -> RunTimes:
    """Return the run times that ``streamer models check`` measures."""
    command = [sys.executable, "-m", "streamer", "models", "check", str(path), "--json", "--quiet"]
    done = subprocess.run(command, capture_output=True, check=True, cwd=ROOT)
    report = folder / "times.json"
    report.write_bytes(done.stdout)
    return read_run_times(str(report))


def light_load(service: Service, version: str, frames: Sequence[bytes], fps: float) -> ProcessorTime:
    """Return the processor time of a frame at a light load, in milliseconds."""
    url = f"{service.http_url}/{version}/stream"

    def run(seconds: float) -> int:
        records = asyncio.run(
            run_cameras(url, frames, [fps / 2] * 2, jitter_s=0.2 / fps, ramp_s=0, settle_s=0, seconds=seconds)
        )
        return sum(record.results for record in records)

    run(2.0)  # the service learns what frames cost, and caches are filled
    before = ProcessorTime.now(service)
    results = run(LIGHT_S)
    return ProcessorTime.now(service).per_frame_ms(before, max(1, results))


def idle_cores(service: Service) -> float:
    """Return the cores that all processes of the service use while nothing is to do."""
    pids = [service.supervisor.pid, *(each.pid for each in service.supervisor.children(recursive=True))]
    before, begun = sum(map(cpu_s, pids)), time.perf_counter()
    time.sleep(IDLE_S)
    return max(0.0, sum(map(cpu_s, pids)) - before) / (time.perf_counter() - begun)


def calibrate(service: Service, path: Path, null: Path, frames: Sequence[bytes], folder: Path) -> Machine:
    """Measure all parts, print them, and return the machine to simulate."""
    times, null_times = check_times(path, folder), check_times(null, folder)
    one_ms = times.cost_ms[min(times.cost_ms)]
    idle = idle_cores(service)
    real = light_load(service, "v1", frames, min(LIGHT_FPS, 200.0 / one_ms))
    bare = light_load(service, "v2", frames, LIGHT_FPS)
    # What the inference process takes for a frame besides the run: from the model that does nothing.
    post_ms = max(0.0, bare.inference - null_times.cost_ms[1])
    machine = Machine(
        times,
        len(os.sched_getaffinity(0)),
        core_efficiency=times.core_efficiency,
        decode_s=real.decoders / 1e3,
        frame_s=real.worker / 1e3,
        post_s=post_ms / 1e3,
        client_s=real.client / 1e3,
        wake_up_s=times.wake_up_ms / 1e3,
        idle_cores=idle,
    )
    sys.stdout.write(
        f"run times {json.dumps(dict(times.cost_ms))} ms, on all cores {times.all_cores_ms} ms, "
        f"efficiency of a core beside others {times.core_efficiency:.3f}\n"
        f"a frame takes {real.decoders:.2f} ms in decoders, {real.worker:.2f} on the event loop, "
        f"{post_ms:.2f} in the inference process besides its run, {real.client:.2f} in the client\n"
        f"a wake-up takes {times.wake_up_ms:.3f} ms, and the service uses {idle:.3f} cores without a stream\n"
    )
    return machine


def capacity_fps(machine: Machine) -> float:
    """Return the frames per second at which all cores are busy."""
    size, cost_s = max(machine.run_times.cost_s.items(), key=lambda each: each[0] / each[1])
    frame_s = cost_s / size + machine.decode_s + machine.frame_s + machine.post_s + machine.client_s
    return (machine.cores - machine.idle_cores) * machine.core_efficiency / frame_s


@dataclass(frozen=True, slots=True)
class Figures:
    """Holds what is compared; ages in milliseconds."""

    delivered_fps: float
    p50: float
    p95: float
    p99: float
    drop_share: float

    @classmethod
    def of_records(cls, records: Sequence[StreamRecord], seconds: float) -> Figures:
        """Return the figures of a real load."""
        ages_ms = np.concatenate([np.asarray(record.ages_s) for record in records]) * 1e3
        captured = sum(record.captured for record in records)
        return cls(
            len(ages_ms) / seconds,
            percentile(ages_ms, 50) or 0.0,
            percentile(ages_ms, 95) or 0.0,
            percentile(ages_ms, 99) or 0.0,
            1.0 - len(ages_ms) / max(1, captured),
        )

    @classmethod
    def of_reports(cls, reports: Sequence[Report]) -> Figures:
        """Return the medians of several simulations."""
        return cls(
            statistics.median(report.delivered_fps for report in reports),
            statistics.median(report.age_p50 or 0.0 for report in reports),
            statistics.median(report.age_p95 or 0.0 for report in reports),
            statistics.median(report.age_p99 or 0.0 for report in reports),
            statistics.median(report.drop_share for report in reports),
        )


def compare(load: float, mix: Mix, real: Figures, simulated: Figures) -> tuple[str, list[float]]:
    """Return the lines of one load, and the ratios in them."""
    lines, ratios = [f"{load:.0%} of the capacity: {mix}\n"], list[float]()
    for name, is_, was in (
        ("results per second", simulated.delivered_fps, real.delivered_fps),
        ("age p50, ms", simulated.p50, real.p50),
        ("age p95, ms", simulated.p95, real.p95),
        ("age p99, ms", simulated.p99, real.p99),
    ):
        ratios.append(is_ / max(was, 1e-9))
        lines.append(f"  {name:20} measured {was:7.1f}  simulated {is_:7.1f}  ratio {ratios[-1]:.3f}\n")
    points = (simulated.drop_share - real.drop_share) * 100
    lines.append(
        f"  {'dropped':20} measured {real.drop_share:7.1%}  simulated {simulated.drop_share:7.1%}"
        f"  {points:+.1f} points\n"
    )
    return "".join(lines), ratios


def main() -> None:
    """Print the measured parts, and five lines for each load."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="yolox_nano", help="null, yolox_nano (if shared) or a path")
    parser.add_argument("--fps", type=float, default=10.0, help="frames per second of each stream")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each measurement")
    parser.add_argument("--loads", type=float, nargs="*", default=LOADS, help="parts of the capacity")
    arguments = parser.parse_args()
    frames, seconds = images(), arguments.seconds
    ratios: list[float] = []
    jitter_s = 0.4 / arguments.fps  # so large that the phases of the cameras do not matter
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, null = model(arguments.model, folder), null_model(folder / "nothing.onnx", size=320)
        settings = {"MODEL_V1_PATH": str(path), "MODEL_V2_PATH": str(null)}
        with Service(settings | {"STREAM_MIN_FPS": "0", "SAMPLING": "0"}) as service:
            machine = calibrate(service, path, null, frames, folder)
            most = capacity_fps(machine)
            sys.stdout.write(f"capacity {most:.1f} frames per second\n")
            for load in arguments.loads:
                mix = Mix((Group(max(1, round(load * most / arguments.fps)), arguments.fps),))
                rates = [arguments.fps] * mix.streams
                records = asyncio.run(
                    run_cameras(
                        f"{service.http_url}/v1/stream",
                        frames,
                        rates,
                        jitter_s=jitter_s,
                        ramp_s=RAMP_S,
                        settle_s=SETTLE_S,
                        seconds=seconds,
                    )
                )
                cameras = Cameras(
                    jitter_s=jitter_s, latency_s=0.0, latency_jitter_s=0.0, clients=1, ramp_s=RAMP_S
                )
                scenario = Scenario(mix, machine, cameras, ServiceSettings(0.0), SETTLE_S, seconds)
                reports = [simulate(dataclasses.replace(scenario, seed=seed)) for seed in range(1, SEEDS + 1)]
                real = Figures.of_records(records, seconds)
                text, found = compare(load, mix, real, Figures.of_reports(reports))
                ratios += found
                sys.stdout.write(text)
                sys.stdout.flush()
    far = sum(abs(ratio - 1.0) > AGREES for ratio in ratios)
    sys.stdout.write(f"{len(ratios) - far} of {len(ratios)} ratios are within {AGREES:.0%}\n")


if __name__ == "__main__":
    main()
