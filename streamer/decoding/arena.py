"""Input memory of the decoders: encoded images lie here until one of them has read them."""

from __future__ import annotations

import bisect
import ctypes
import fcntl
import mmap
import os

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
#: Blocks from this size on are given back to the system when they are freed; smaller ones stay warm.
_GIVE_BACK_BYTES = 1 << 20
_FALLOC_KEEP_SIZE, _FALLOC_PUNCH_HOLE = 1, 2


class ArenaFull(Exception):
    """There is no room at the moment; it comes with the next answer."""


class Arena:
    """A sealed `memfd` with a first-fit allocator of whole pages. One thread uses it.

    Decoders map all of it. They read, and the worker alone writes and decides what lies where.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = _whole_pages(size_bytes)
        self.fd = os.memfd_create("decoder-input", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, self.size_bytes)
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS)
        self._memory = mmap.mmap(self.fd, self.size_bytes)
        #: Start and end of what is free, in order; neighbours are joined.
        self._free: list[tuple[int, int]] = [(0, self.size_bytes)]

    def put(self, data: bytes | memoryview) -> int:
        """Copy ``data`` in and return its offset. Raises ArenaFull."""
        wanted = _whole_pages(len(data))
        for index, (start, end) in enumerate(self._free):
            if end - start >= wanted:
                if end - start == wanted:
                    del self._free[index]
                else:
                    self._free[index] = (start + wanted, end)
                self._memory[start : start + len(data)] = data
                return start
        raise ArenaFull(f"no {wanted} bytes in one piece")

    def free(self, offset: int, length: int) -> None:
        """Give a block back that :meth:`put` returned for ``length`` bytes."""
        start, end = offset, offset + _whole_pages(length)
        if end - start >= _GIVE_BACK_BYTES:
            _punch(self.fd, start, end - start)
        index = bisect.bisect(self._free, (start, end))
        if index < len(self._free) and self._free[index][0] == end:
            end = self._free[index][1]
            del self._free[index]
        if index and self._free[index - 1][1] == start:
            start = self._free[index - 1][0]
            index -= 1
            del self._free[index]
        self._free.insert(index, (start, end))

    def close(self) -> None:
        """Unmap and close; decoders keep their mapping."""
        self._memory.close()
        os.close(self.fd)


def _whole_pages(size_bytes: int) -> int:
    return max(1, -(-size_bytes // mmap.PAGESIZE)) * mmap.PAGESIZE


def _punch(fd: int, offset: int, length: int) -> None:
    """Return pages to the system; the next read sees zeros. A kernel that cannot keeps them."""
    ctypes.CDLL(None).fallocate(
        fd,
        _FALLOC_KEEP_SIZE | _FALLOC_PUNCH_HOLE,
        ctypes.c_long(offset),
        ctypes.c_long(length),
    )
