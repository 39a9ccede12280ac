"""Locks a decoder process into a sandbox, where it can open no files, use no network and start no programs.

Landlock is a second barrier besides the system call filter, and the only one if the kernel has no seccomp.
The kernel's `Documentation/userspace-api/landlock.rst` and `Documentation/userspace-api/seccomp_filter.rst`
describe them. This module lists the allowed calls once, with their numbers on the two architectures that the
service supports.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import platform
import resource
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

#: Numbers of the system calls of Landlock, which are the same on every architecture.
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_GET_VERSION = 1
_PR_SET_NO_NEW_PRIVS = 38
#: Number of file access rights in each version of Landlock's interface; they are the lowest bits of the mask.
_FILE_ACCESSES = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
#: Access rights to bind and connect TCP sockets, available from version 4 on.
_NET_ACCESSES = 0b11
_NET_SINCE = 4


class LandlockUnavailable(Exception):
    """The kernel has no Landlock or does not allow it; the text says why."""


def deny_all() -> None:
    """Deny this process everything that Landlock can deny; open descriptors stay usable.

    Raises LandlockUnavailable if the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, 0, _GET_VERSION)
    if version < 1:
        raise LandlockUnavailable(f"the kernel has none: errno {ctypes.get_errno()}")
    bits = _FILE_ACCESSES.get(version, _FILE_ACCESSES[max(_FILE_ACCESSES)])
    handled = struct.pack("=Q", (1 << bits) - 1)
    if version >= _NET_SINCE:
        handled += struct.pack("=Q", _NET_ACCESSES)
    ruleset = libc.syscall(_CREATE_RULESET, handled, len(handled), 0)
    if ruleset < 0:
        raise LandlockUnavailable(f"no ruleset: errno {ctypes.get_errno()}")
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
        raise LandlockUnavailable(f"the ruleset was refused: errno {ctypes.get_errno()}")


#: The kernel's `AUDIT_ARCH_*` value, and the number of the `seccomp` call itself.
_ARCHITECTURES = {"x86_64": (0xC000003E, 317), "aarch64": (0xC00000B7, 277)}

#: Calls that are always allowed: name to number on x86_64 and aarch64; None if an architecture lacks the
#: call.
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    # Memory. The conditions on `mmap` and `mprotect`, which may never make memory executable, are below.
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    # The channel to the worker, which is open already; no allowed call creates a socket.
    "recvmsg": (47, 212),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "sendto": (44, 206),
    # Descriptors that came with a message.
    "close": (3, 57),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "fcntl": (72, 25),
    "lseek": (8, 62),
    # Locks, time and random numbers.
    "futex": (202, 98),
    "clock_gettime": (228, 113),
    "gettimeofday": (96, 169),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "getrandom": (318, 278),
    "getrusage": (98, 165),
    "restart_syscall": (219, 128),
    # Signals and exit: an abort must end the process and not let it hang.
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "tgkill": (234, 131),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
#: Numbers of calls that are allowed depending on their arguments.
_MMAP, _MPROTECT, _WRITE, _WRITEV, _PRLIMIT = (9, 222), (10, 226), (1, 64), (20, 66), (302, 261)

_LD_WORD, _JEQ, _JSET, _RETURN = 0x20, 0x15, 0x45, 0x06
#: Offsets in `struct seccomp_data`. Arguments have 64 bits, little endian: the low word comes first.
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_KILL_PROCESS, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_STDERR = 2

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


class SeccompUnavailable(Exception):
    """The kernel or this architecture has no seccomp filters; the text says why."""


@dataclass(frozen=True, slots=True)
class _Step:
    """Holds one BPF instruction."""

    code: int
    if_true: int
    if_false: int
    value: int

    def pack(self) -> bytes:
        return struct.pack("=HBBI", self.code, self.if_true, self.if_false, self.value)


def _low_word(argument: int) -> int:
    return _ARGUMENTS_AT + 8 * argument


def _when_zero_bits(number: int, argument: int, mask: int) -> list[_Step]:
    """Return the steps that allow a call unless its argument has one of the bits of ``mask``."""
    return [
        _Step(_JEQ, 0, 4, number),
        _Step(_LD_WORD, 0, 0, _low_word(argument)),
        _Step(_JSET, 1, 0, mask),
        _Step(_RETURN, 0, 0, _ALLOW),
        _Step(_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]


def _when_equal(number: int, argument: int, value: int) -> list[_Step]:
    """Return the steps that allow a call only when its argument has this value."""
    return [
        _Step(_JEQ, 0, 4, number),
        _Step(_LD_WORD, 0, 0, _low_word(argument)),
        _Step(_JEQ, 0, 1, value),
        _Step(_RETURN, 0, 0, _ALLOW),
        _Step(_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]


def build_filter(machine: str) -> bytes:
    """Return the filter as packed BPF instructions for ``machine`` (as `platform.machine()` names it).

    A call with the number scheme of another architecture kills the process; every other call that is not
    allowed fails with EPERM. Raises SeccompUnavailable for a machine whose numbers are not known here.
    """
    if machine not in _ARCHITECTURES:
        raise SeccompUnavailable(f"the system call numbers of {machine} are not known here")
    column = list(_ARCHITECTURES).index(machine)
    architecture, _ = _ARCHITECTURES[machine]
    steps = [
        _Step(_LD_WORD, 0, 0, _ARCHITECTURE_AT),
        _Step(_JEQ, 1, 0, architecture),
        _Step(_RETURN, 0, 0, _KILL_PROCESS),
        _Step(_LD_WORD, 0, 0, _NUMBER_AT),
    ]
    # The most frequent calls come first, because every call is compared with this list from the top.
    for numbers in _ALLOWED.values():
        number = numbers[column]
        if number is not None:
            steps += [_Step(_JEQ, 0, 1, number), _Step(_RETURN, 0, 0, _ALLOW)]
    steps += _when_zero_bits(_MMAP[column], 2, mmap.PROT_EXEC)
    steps += _when_zero_bits(_MPROTECT[column], 2, mmap.PROT_EXEC)
    steps += _when_equal(_WRITE[column], 0, _STDERR)
    steps += _when_equal(_WRITEV[column], 0, _STDERR)
    # The process may change its own limits, because the soft limit of processor time moves with each image,
    # but not the limits of other processes.
    steps += _when_equal(_PRLIMIT[column], 0, 0)
    steps.append(_Step(_RETURN, 0, 0, _ERRNO | errno.EPERM))
    return b"".join(step.pack() for step in steps)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def install_filter() -> None:
    """Restrict this process and all processes that it starts, permanently.

    Only one thread may exist. Raises SeccompUnavailable if the kernel refuses.
    """
    packed = build_filter(platform.machine())
    program = _Program(len(packed) // 8, packed)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise SeccompUnavailable(f"no_new_privs was refused: errno {ctypes.get_errno()}")
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise SeccompUnavailable(f"the filter was refused: errno {ctypes.get_errno()}")


_PR_SET_DUMPABLE = 4
#: The kernel kills a decoder that exceeds this; a decoder asks to be replaced long before (`RETIRE_CPU_S`).
CPU_HARD_LIMIT_S = 7200
#: Seconds of processor time that one job may use, counted from the full second in which it starts. This is a
#: second barrier behind the time limit of the pool.
JOB_CPU_LIMIT_S = 3
_MAX_DESCRIPTORS = 32
#: If the machine runs out of memory, the kernel kills decoders before the other processes of the service.
_OOM_SCORE = "700"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Lists the protections of a decoder process, by their names in `/health`."""

    protections: tuple[str, ...]
    #: Reason for each missing protection; empty if all are active.
    missing: tuple[str, ...]


def enter_sandbox(memory_bytes: int) -> Sandbox:
    """Permanently drop all rights that decoding does not need.

    Call this after the last import, while the process has only one thread. ``memory_bytes`` is the address
    space that the process may use beyond what is mapped now.
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
        """Start a job at ``cpu_s`` seconds of processor time.

        The limit is moved at most once a second, because the kernel takes it in whole seconds.
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
