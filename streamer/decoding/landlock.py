"""Landlock: denies a process all access to files and, if the kernel supports it, to TCP ports.

It is a second barrier besides the system call filter, and the only one if the kernel has no seccomp. See the
kernel's `Documentation/userspace-api/landlock.rst`.
"""

from __future__ import annotations

import ctypes
import struct

#: The system calls have the same numbers on every architecture.
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_GET_VERSION = 1
_PR_SET_NO_NEW_PRIVS = 38
#: Number of file access rights, the lowest bits of the mask, in each version of the interface.
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
