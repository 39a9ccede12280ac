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


class PageAllocator:
    """Hands out runs of whole pages, first fit; pure. One thread uses it."""

    def __init__(self, size_bytes: int) -> None:
        #: Start and end of what is free, in order; neighbours are joined.
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
        """Free a run that was taken for ``length`` bytes; returns the bytes that it had."""
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

    Decoders map all of it. They read, and the worker alone writes and decides what lies where.
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
        """Give a block back that :meth:`put` returned for ``length`` bytes."""
        size = self._pages.give_back(offset, length)
        if size >= _GIVE_BACK_BYTES:
            _punch(self.fd, offset, size)

    def close(self) -> None:
        """Unmap and close; decoders keep their mapping."""
        self._memory.close()
        os.close(self.fd)


def sealed_memory(name: str, size_bytes: int) -> int:
    """Return a `memfd` that nobody can shrink under another process's mapping; the caller owns it."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size_bytes)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def _whole_pages(size_bytes: int) -> int:
    return (-(-size_bytes // mmap.PAGESIZE) or 1) * mmap.PAGESIZE


def _punch(fd: int, offset: int, length: int) -> None:
    """Return pages to the system; the next read sees zeros. A kernel that cannot keeps them."""
    ctypes.CDLL(None).fallocate(
        fd,
        _FALLOC_KEEP_SIZE | _FALLOC_PUNCH_HOLE,
        ctypes.c_long(offset),
        ctypes.c_long(length),
    )
