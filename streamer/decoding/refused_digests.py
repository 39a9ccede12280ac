"""Remembers which bytes have crashed a decoder or taken it too long, for all workers of a replica.

The workers refuse such bytes, so that these harm only one decoder.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import mmap
import os
import struct
import time
from pathlib import Path

log = logging.getLogger("streamer.decoding")

#: Seconds for which bytes that crashed a decoder are remembered, and bytes that took it too long.
REMEMBER_CRASH_S = 3600.0
REMEMBER_SLOW_S = 600.0
_ENTRIES = 1000
_HEADER = struct.Struct("<Q")
#: SHA-256, length in bytes, and expiry in seconds of the monotonic clock, which all processes of a machine
#: share.
_ENTRY = struct.Struct("<32sQd")
_BYTES = _HEADER.size + _ENTRIES * _ENTRY.size


class RefusedDigests:
    """Keeps the last thousand digests in a file that the workers of a replica map.

    A lookup computes a hash only if bytes of the same length are remembered.
    """

    def __init__(self, path: Path | None) -> None:
        """Map the file ``path``, and create it if it does not exist.

        If ``path`` is None or the disk is full, only this process remembers.
        """
        self._fd, self._memory = -1, mmap.mmap(-1, _BYTES)
        if path is not None:
            try:
                self._fd, self._memory = _map(path)
            except OSError as error:
                log.warning("only this worker remembers images that crash decoders (%s: %s)", path, error)
        #: Number of digests that were ever added, a single value that is read and written atomically.
        self._count = memoryview(self._memory)[: _HEADER.size].cast("Q")
        self._seen = -1
        #: Maps a length to the digests of that length, each with its expiry time.
        self._known: dict[int, dict[bytes, float]] = {}

    def contains(self, data: bytes | memoryview) -> bool:
        """Return whether these bytes have recently crashed a decoder or taken it too long."""
        count = self._count[0]
        if count != self._seen:
            self._load(count)
        if not self._known:
            return False
        same_length = self._known.get(len(data))
        if same_length is None:
            return False
        return same_length.get(hashlib.sha256(data).digest(), 0.0) > time.monotonic()

    def add(self, data: bytes | memoryview, seconds: float = REMEMBER_CRASH_S) -> None:
        """Remember bytes for this many seconds; the new entry overwrites the oldest one."""
        digest = hashlib.sha256(data).digest()
        if self._fd >= 0:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            count = self._count[0]
            offset = _HEADER.size + (count % _ENTRIES) * _ENTRY.size
            _ENTRY.pack_into(self._memory, offset, digest, len(data), time.monotonic() + seconds)
            self._count[0] = count + 1
        finally:
            if self._fd >= 0:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Unmap and close the file, which stays until its folder is removed."""
        self._count.release()
        self._memory.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _load(self, count: int) -> None:
        self._seen, self._known = count, {}
        for index in range(min(count, _ENTRIES)):
            digest, length, until = _ENTRY.unpack_from(self._memory, _HEADER.size + index * _ENTRY.size)
            self._known.setdefault(length, {})[digest] = until


def _map(path: Path) -> tuple[int, mmap.mmap]:
    """Return a descriptor and a mapping of the file. Raises OSError, also if the disk is full."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Allocate all blocks now: if the disk had no room for a page, touching it later would kill this
        # process.
        os.posix_fallocate(fd, 0, _BYTES)
        return fd, mmap.mmap(fd, _BYTES)
    except OSError:
        os.close(fd)
        raise
