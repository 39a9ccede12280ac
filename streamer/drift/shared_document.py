"""Pages of shared memory on which the observer posts the status, for every worker to read without asking.

Their last word outlives an observer that has died.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib

#: Number of the edition, bytes, checksum.
_HEAD = struct.Struct("<QII")
#: Of 64 groups with all their columns; unused pages cost nothing.
PAGE_BYTES = 2 << 20
_TRIES = 20


class StatusPage:
    """A sealed size in a ``memfd`` that children inherit. One writer; readers never wait."""

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            fd = os.memfd_create("drift", os.MFD_CLOEXEC)
            os.ftruncate(fd, PAGE_BYTES)
        self.fd = fd
        self._memory = mmap.mmap(fd, PAGE_BYTES)
        #: What was read last, and its edition.
        self._last = (0, b"")

    def post(self, text: bytes) -> None:
        """Replace what stands there. Raises ValueError when it is too long."""
        if len(text) > PAGE_BYTES - _HEAD.size:
            raise ValueError(f"{len(text)} bytes; the page holds {PAGE_BYTES}")
        edition = _HEAD.unpack_from(self._memory)[0]
        self._memory[_HEAD.size : _HEAD.size + len(text)] = text
        _HEAD.pack_into(self._memory, 0, edition + 1, len(text), zlib.crc32(text))

    def read(self) -> bytes:
        """Return the last edition that is whole; empty before the first."""
        for _ in range(_TRIES):
            edition, size, checksum = _HEAD.unpack_from(self._memory)
            if edition == self._last[0]:
                break
            text = bytes(self._memory[_HEAD.size : _HEAD.size + min(size, PAGE_BYTES)])
            # Anything else is a page that was being written.
            if zlib.crc32(text) == checksum:
                self._last = edition, text
                break
        return self._last[1]

    def close(self) -> None:
        """Unmap and close; the page lives on in the other processes."""
        self._memory.close()
        os.close(self.fd)
