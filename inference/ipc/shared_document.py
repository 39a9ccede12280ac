"""Shares a document in memory: one process publishes it, and all others read its latest version directly.

The sampling process publishes the drift status this way, and the supervisor the engine table. The last
version stays readable after the writer has died.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib

#: Version number, bytes and checksum of the text.
_HEAD = struct.Struct("<QII")
#: Size unless stated otherwise, enough for the drift of 64 groups with all their columns; memory pages that
#: are never written cost nothing.
CAPACITY_BYTES = 2 << 20
_TRIES = 20


class SharedDocument:
    """Holds the document in a ``memfd`` of fixed size that child processes inherit.

    Only one process writes it; readers never wait.
    """

    def __init__(self, fd: int | None = None, *, capacity_bytes: int = CAPACITY_BYTES) -> None:
        """Map the document at ``fd``, or create one of ``capacity_bytes``."""
        if fd is None:
            fd = os.memfd_create("document", os.MFD_CLOEXEC)
            os.ftruncate(fd, capacity_bytes)
        self.fd = fd
        self._capacity_bytes = os.fstat(fd).st_size
        self._memory = mmap.mmap(fd, self._capacity_bytes)
        #: Version and text that were read last.
        self._last = (0, b"")

    def publish(self, text: bytes) -> None:
        """Replace the text. Raises ValueError when it is too long."""
        if len(text) > self._capacity_bytes - _HEAD.size:
            raise ValueError(f"{len(text)} bytes; the document holds {self._capacity_bytes}")
        version = _HEAD.unpack_from(self._memory)[0]
        self._memory[_HEAD.size : _HEAD.size + len(text)] = text
        _HEAD.pack_into(self._memory, 0, version + 1, len(text), zlib.crc32(text))

    def read(self) -> bytes:
        """Return the last complete version; empty before the first one."""
        for _ in range(_TRIES):
            version, size, checksum = _HEAD.unpack_from(self._memory)
            if version == self._last[0]:
                break
            text = bytes(self._memory[_HEAD.size : _HEAD.size + min(size, self._capacity_bytes)])
            # A wrong checksum means that the writer has changed the text while it was read.
            if zlib.crc32(text) == checksum:
                self._last = version, text
                break
        return self._last[1]

    def close(self) -> None:
        """Unmap and close the document; other processes keep it."""
        self._memory.close()
        os.close(self.fd)
