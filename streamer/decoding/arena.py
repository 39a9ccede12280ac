"""Input memory of the decoders: it holds encoded images until a decoder has read them."""

from __future__ import annotations

import bisect
import ctypes
import fcntl
import mmap
import os

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
#: Freed blocks of at least this size are returned to the system; smaller ones stay mapped and warm.
_GIVE_BACK_BYTES = 1 << 20
_FALLOC_KEEP_SIZE, _FALLOC_PUNCH_HOLE = 1, 2


class ArenaFull(Exception):
    """There is no room now; there will be when a decoder has answered."""


class PageAllocator:
    """Allocates runs of whole pages, first fit. Pure; used by one thread."""

    def __init__(self, size_bytes: int) -> None:
        #: Start and end of each free run, in order; adjacent runs are merged.
        self.free_runs: list[tuple[int, int]] = [(0, size_bytes)]

    def take(self, length: int) -> int:
        """Return the offset of a run for ``length`` bytes. Raises ArenaFull."""
        wanted = _whole_pages(length)
        for index, (start, end) in enumerate(self.free_runs):
            if end - start >= wanted:
                if end - start == wanted:
                    del self.free_runs[index]
                else:
                    self.free_runs[index] = (start + wanted, end)
                return start
        raise ArenaFull(f"no {wanted} bytes in one piece")

    def give_back(self, offset: int, length: int) -> int:
        """Free a run that was taken for ``length`` bytes; return its size in bytes."""
        start, end = offset, offset + _whole_pages(length)
        size = end - start
        index = bisect.bisect(self.free_runs, (start, end))
        if index < len(self.free_runs) and self.free_runs[index][0] == end:
            end = self.free_runs[index][1]
            del self.free_runs[index]
        if index and self.free_runs[index - 1][1] == start:
            start = self.free_runs[index - 1][0]
            index -= 1
            del self.free_runs[index]
        self.free_runs.insert(index, (start, end))
        return size


class Arena:
    """A sealed `memfd` for encoded images. One thread uses it.

    Decoders map all of it for reading. Only the worker writes, and decides where each image is placed.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = _whole_pages(size_bytes)
        self.fd = sealed_memory("decoder-input", self.size_bytes)
        self._memory = mmap.mmap(self.fd, self.size_bytes)
        self._pages = PageAllocator(self.size_bytes)

    def put(self, data: bytes | memoryview) -> int:
        """Copy ``data`` in and return its offset. Raises ArenaFull."""
        start = self._pages.take(len(data))
        self._memory[start : start + len(data)] = data
        return start

    def free(self, offset: int, length: int) -> None:
        """Free a block that :meth:`put` returned for ``length`` bytes."""
        size = self._pages.give_back(offset, length)
        if size >= _GIVE_BACK_BYTES:
            _punch(self.fd, offset, size)

    def close(self) -> None:
        """Unmap and close the memory; decoders keep their mapping."""
        self._memory.close()
        os.close(self.fd)


def sealed_memory(name: str, size_bytes: int) -> int:
    """Return a `memfd` that no process can shrink while others map it; the caller owns it."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size_bytes)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def _whole_pages(size_bytes: int) -> int:
    return (-(-size_bytes // mmap.PAGESIZE) or 1) * mmap.PAGESIZE


def _punch(fd: int, offset: int, length: int) -> None:
    """Return pages to the system; the next read sees zeros. A kernel without this operation keeps them."""
    ctypes.CDLL(None).fallocate(
        fd,
        _FALLOC_KEEP_SIZE | _FALLOC_PUNCH_HOLE,
        ctypes.c_long(offset),
        ctypes.c_long(length),
    )
