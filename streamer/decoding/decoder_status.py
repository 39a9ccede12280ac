"""Shares a page of memory on which each decoder process writes its current job and when that job began.

The worker reads the page without a request, because a decoder that hangs or has died cannot answer. Each
entry has one writer, and aligned 8-byte fields are written atomically.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from dataclasses import dataclass

_ENTRY = struct.Struct("<Qdd")
_ENTRY_BYTES = 64
_BYTES = 16 * mmap.PAGESIZE
MAX_DECODERS = _BYTES // _ENTRY_BYTES
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, slots=True)
class DecoderEntry:
    """States what one decoder is doing."""

    #: Number of its job; 0 while it waits for one.
    job: int
    #: Start of the job in monotonic seconds.
    since: float
    #: Processor time of the process when the job began, seconds.
    cpu_s: float


class DecoderStatus:
    """Holds the entries of all decoders by index, in a sealed `memfd` that decoders inherit."""

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            fd = os.memfd_create("decoder-status", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, _BYTES)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        self.fd = fd
        self._memory = mmap.mmap(fd, _BYTES)

    def write(self, index: int, job: int, since: float, cpu_s: float) -> None:
        """Write a decoder's entry.

        The times are written before the job, so that no reader sees a job with the times of an older one.
        """
        struct.pack_into("<dd", self._memory, index * _ENTRY_BYTES + 8, since, cpu_s)
        struct.pack_into("<Q", self._memory, index * _ENTRY_BYTES, job)

    def read(self, index: int) -> DecoderEntry:
        """Return a decoder's entry."""
        return DecoderEntry(*_ENTRY.unpack_from(self._memory, index * _ENTRY_BYTES))

    def close(self) -> None:
        """Unmap and close the page; decoders keep their mapping."""
        self._memory.close()
        os.close(self.fd)
