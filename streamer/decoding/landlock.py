"""Landlock: denies a process every access to files and, where the kernel can, TCP ports.

It is a second fence behind the system call filter, and the only one where there is no seccomp. See the
kernel's `Documentation/userspace-api/landlock.rst`.
"""

from __future__ import annotations

import ctypes
import struct

#: The three calls have the same numbers on every architecture.
_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_GET_VERSION = 1
_PR_SET_NO_NEW_PRIVS = 38
#: File accesses that each version of the interface knows, as a number of low bits.
_FILE_ACCESSES = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
#: Bind and connect of TCP, from version 4 on.
_NET_ACCESSES = 0b11
_NET_SINCE = 4


class LandlockUnavailable(Exception):
    """The kernel has no Landlock, or does not allow it; the text says why."""


def deny_all() -> None:
    """Deny this process all that Landlock can deny; descriptors that are open stay usable.

    Raises LandlockUnavailable when the kernel refuses.
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
