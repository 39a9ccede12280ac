"""Decides which engines there are: one for each device of DEVICE, and the cores of those that run on a
CPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from inference.core.device import AUTO, Device, parse_devices

#: Exists where the driver of NVIDIA is loaded.
_NVIDIA = Path("/dev/nvidiactl")
#: Longest time for counting the GPUs; CUDA takes seconds to start on machines with many.
_COUNT_S = 60.0


def devices_of(setting: str) -> tuple[str, ...]:
    """Return the device of each engine for a value of DEVICE. Raises ValueError for one that is not allowed.

    `AUTO` takes every GPU that this process may see. Where there is none, or one, a single engine decides
    itself.
    """
    devices = parse_devices(setting)
    count = _gpu_count() if devices == (AUTO,) else 0
    return tuple(f"{AUTO}:{number}" for number in range(count)) if count > 1 else devices


def cores_of(devices: tuple[str, ...]) -> list[tuple[int, ...]]:
    """Return the cores of each engine; empty for all that the process may use.

    If several engines run on the CPU, each gets a part of its own, so that each counts as many inference
    threads as it has cores. The cores of a part are neighbours, so on a machine with several memory nodes
    each engine is in one of them, where possible.
    """
    on_cpu = [index for index, device in enumerate(devices) if Device.parse(device).kind == "cpu"]
    cores = sorted(os.sched_getaffinity(0), key=lambda core: (_node_of(core), core))
    parts: list[tuple[int, ...]] = [()] * len(devices)
    if len(on_cpu) < 2 or len(cores) < len(on_cpu):
        return parts
    for number, index in enumerate(on_cpu):
        first, end = (len(cores) * step // len(on_cpu) for step in (number, number + 1))
        parts[index] = tuple(cores[first:end])
    return parts


def _node_of(core: int) -> int:
    """Return the memory node of a core; 0 if the kernel does not say."""
    for entry in Path(f"/sys/devices/system/cpu/cpu{core}").glob("node[0-9]*"):
        if found := re.fullmatch(r"node([0-9]+)", entry.name):
            return int(found.group(1))
    return 0


def _gpu_count() -> int:
    """Return how many GPUs models can run on; 0 if that is not known."""
    if not _NVIDIA.exists():
        return 0
    try:
        done = subprocess.run(
            [sys.executable, "-m", "inference.engine.gpu_count"],
            capture_output=True,
            text=True,
            timeout=_COUNT_S,
            check=True,
        )
        return int(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0
