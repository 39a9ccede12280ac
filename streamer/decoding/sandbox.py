"""Confines a decoder process: no network, no files, no other programs, bounded memory and processor time."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from streamer.decoding.landlock import LandlockUnavailable, deny_all
from streamer.decoding.seccomp import SeccompUnavailable, install_filter

_PR_SET_DUMPABLE = 4
#: The kernel kills a decoder that exceeds this; a decoder asks to be replaced long before (`RETIRE_CPU_S`).
CPU_HARD_LIMIT_S = 7200
#: Seconds of processor time, from the second in which a job starts; a backup for the pool's wall-clock limit.
JOB_CPU_LIMIT_S = 3
_MAX_DESCRIPTORS = 32
#: If the machine runs out of memory, the kernel kills decoders before the other processes of the service.
_OOM_SCORE = "700"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The protections of a decoder process, by their names in `/health`."""

    protections: tuple[str, ...]
    #: Reason for each missing protection; empty if all are active.
    missing: tuple[str, ...]


def enter_sandbox(memory_bytes: int) -> Sandbox:
    """Permanently drop all rights that decoding does not need. Call it with one thread, after the last
    import.

    ``memory_bytes`` is the address space that may be used beyond what is mapped now.
    """
    protections, missing = ["rlimits", "no_new_privs"], []
    try:
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    except OSError as error:
        missing.append(f"oom_score_adj: {error.strerror}")
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    limit_bytes = _mapped_bytes() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MAX_DESCRIPTORS, _MAX_DESCRIPTORS))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_HARD_LIMIT_S, CPU_HARD_LIMIT_S))
    for name, lock in (("landlock", deny_all), ("seccomp", install_filter)):
        try:
            lock()
        except (LandlockUnavailable, SeccompUnavailable) as error:
            missing.append(f"{name}: {error}")
        else:
            protections.append(name)
    return Sandbox(tuple(protections), tuple(missing))


class CpuLimit:
    """Bounds the processor time of one job by the soft limit of the process, enforced by SIGXCPU."""

    def __init__(self) -> None:
        self._second = -1

    def renew(self, cpu_s: float) -> None:
        """Start a job at ``cpu_s`` of processor time. The limit has a resolution of one second and moves
        accordingly.
        """
        second = int(cpu_s)
        if second != self._second:
            self._second = second
            soft_s = min(second + JOB_CPU_LIMIT_S, CPU_HARD_LIMIT_S)
            resource.setrlimit(resource.RLIMIT_CPU, (soft_s, CPU_HARD_LIMIT_S))


def close_descriptors(keep: set[int]) -> None:
    """Close all descriptors except ``keep`` and standard error."""
    for number in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if number not in keep and number != sys.stderr.fileno():
            with contextlib.suppress(
                OSError
            ):  # the descriptor that was used to list the folder is closed already
                os.close(number)


def _mapped_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
