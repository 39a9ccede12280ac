"""A system call filter for decoder processes: a short allow-list, compiled to seccomp BPF by hand.

The filter language is described in the kernel's `Documentation/userspace-api/seccomp_filter.rst`. This module
lists the allowed calls once, with their numbers on the two architectures that the service supports.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import platform
import struct
from dataclasses import dataclass

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

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2


class SeccompUnavailable(Exception):
    """The kernel or this architecture has no seccomp filters; the text says why."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One BPF instruction."""

    code: int
    if_true: int
    if_false: int
    value: int

    def pack(self) -> bytes:
        return struct.pack("=HBBI", self.code, self.if_true, self.if_false, self.value)


def _low_word(argument: int) -> int:
    return _ARGUMENTS_AT + 8 * argument


def _when_zero_bits(number: int, argument: int, mask: int) -> list[_Step]:
    """Allow a call unless its argument has one of the bits of ``mask``."""
    return [
        _Step(_JEQ, 0, 4, number),
        _Step(_LD_WORD, 0, 0, _low_word(argument)),
        _Step(_JSET, 1, 0, mask),
        _Step(_RETURN, 0, 0, _ALLOW),
        _Step(_RETURN, 0, 0, _ERRNO | errno.EPERM),
    ]


def _when_equal(number: int, argument: int, value: int) -> list[_Step]:
    """Allow a call only when its argument has this value."""
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
    # The process may change its own limits (the soft limit of processor time moves with each image), no
    # others.
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
