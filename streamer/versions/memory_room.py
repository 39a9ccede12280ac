"""Judges in advance whether there is memory for a second set of inference processes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from streamer.versions.errors import ChangeRefused

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: Loaded weights take about the size of their file, and as much again while sessions optimise the graph.
_BYTES_PER_FILE_BYTE = 2


def available_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes that processes of this container can still take; None if the system does not say."""
    found = [each for each in (_system_bytes(proc), _cgroup_bytes(proc, cgroups)) if each is not None]
    return min(found) if found else None


def resident_bytes(pids: Iterable[int], proc: Path = Path("/proc")) -> int:
    """Return the resident memory of processes; those that have ended count as 0."""
    total = 0
    for pid in pids:
        try:
            total += int((proc / str(pid) / "statm").read_text().split()[1]) * _PAGE_BYTES
        except (OSError, ValueError, IndexError):
            continue
    return total


def check_room(present_bytes: int, present_files: int, new_files: int, available: int | None) -> None:
    """Raise ChangeRefused if new processes will not fit beside the present ones.

    ``present_bytes`` is the resident memory of the present processes, the files are the sizes of all models
    in bytes. The new processes take as much as the present ones, and twice what their files are larger.
    """
    needed = present_bytes + _BYTES_PER_FILE_BYTE * max(0, new_files - present_files)
    if available is None or needed <= available:
        return
    raise ChangeRefused(
        "no_room",
        f"a second set of inference processes will take about {_mib(needed)} MiB (the present one has "
        f"{_mib(present_bytes)} MiB with model files of {_mib(present_files)} MiB; the new files have "
        f"{_mib(new_files)} MiB), and {_mib(available)} MiB are available",
        conflict=True,
    )


def _system_bytes(proc: Path) -> int | None:
    try:
        for line in (proc / "meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                return int(rest.split()[0]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return None


def _cgroup_bytes(proc: Path, cgroups: Path) -> int | None:
    """Return what the limits of the cgroup (version 2) and of those above it leave."""
    try:
        line = next(x for x in (proc / "self/cgroup").read_text().splitlines() if x.startswith("0::"))
    except (OSError, StopIteration):
        return None
    # In a container with a namespace of its own, the path is "/" and the limit is at the root.
    group = (cgroups / line[3:].strip().lstrip("/")).resolve()
    found: list[int] = []
    while group.is_relative_to(cgroups):
        left = _left_in(group)
        if left is not None:
            found.append(left)
        group = group.parent
    return min(found) if found else None


def _left_in(group: Path) -> int | None:
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((group / "memory.current").read_text())
        # The kernel takes back cached pages of files before it refuses memory.
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, int(limit) - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return None


def _mib(count: int) -> int:
    return round(count / (1 << 20))
