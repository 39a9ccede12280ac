"""Metric values of all processes of a replica, in one memory file that they share.

prometheus_client keeps the values of several processes in memory-mapped files. On a disk that is full,
writing to such a file ends the process (SIGBUS), and a folder can be deleted; memory can be neither. The
memory file has a slot for each of prometheus_client's files, which keep their names and their format.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import struct
import threading
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from prometheus_client import multiprocess, values
from prometheus_client.mmap_dict import MmapedDict, _read_all_values

log = logging.getLogger("inference.metric_store")

#: Some 5,000 series; the service has a few hundred. Pages that are not used take no memory.
SLOT_BYTES = 1 << 20
_NAME_BYTES = 64
#: prometheus_client makes a file for each type and each mode of gauges in each process.
SLOTS_PER_PROCESS = 8
_USED = struct.Struct("i")
_VALUE = struct.Struct("dd")
_VALUE_BYTES = _VALUE.size


class MetricStore:
    """The memory file. The supervisor makes it; children get its descriptor and construct it from that."""

    def __init__(self, *, processes: int = 0, fd: int | None = None) -> None:
        """Make a file for so many processes, or open the one behind ``fd``."""
        if fd is None:
            fd = os.memfd_create("metrics", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            slots = processes * SLOTS_PER_PROCESS
            os.ftruncate(fd, _pages(slots * _NAME_BYTES) + slots * SLOT_BYTES)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self.fd = fd
        self._slots = os.fstat(fd).st_size // (SLOT_BYTES + _NAME_BYTES)

    def names(self) -> list[str]:
        """Return the names of all files that any process has made."""
        data = os.pread(self.fd, self._slots * _NAME_BYTES, 0)
        found = [
            data[at : at + _NAME_BYTES].rstrip(b"\0").decode() for at in range(0, len(data), _NAME_BYTES)
        ]
        return [name for name in found if name]

    def map(self, name: str) -> mmap.mmap:
        """Return the memory of a file, made if need be. Raises OSError when there is no slot left."""
        if len(name.encode()) > _NAME_BYTES:
            raise OSError(f"the name of a metric file is longer than {_NAME_BYTES} bytes: {name}")
        # A lock of this process: the kernel takes it back when the process dies.
        fcntl.lockf(self.fd, fcntl.LOCK_EX)
        try:
            names = self.names()
            if name not in names:
                if len(names) == self._slots:
                    raise OSError(f"there is no slot left for metric file {name}")
                os.pwrite(self.fd, name.encode(), len(names) * _NAME_BYTES)
                names.append(name)
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN)
        return mmap.mmap(self.fd, SLOT_BYTES, offset=self._offset(names.index(name)))

    def read(self, name: str) -> bytes:
        """Return what is used of a file. Raises FileNotFoundError when nobody has made it."""
        names = self.names()
        if name not in names:
            raise FileNotFoundError(name)
        offset = self._offset(names.index(name))
        used = min(_USED.unpack(os.pread(self.fd, _USED.size, offset))[0], SLOT_BYTES)
        return os.pread(self.fd, used, offset)

    def _offset(self, index: int) -> int:
        return _pages(self._slots * _NAME_BYTES) + index * SLOT_BYTES


def _pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


#: None until :func:`use` was called; then prometheus_client keeps its values there.
_store: MetricStore | None = None


def use(store: MetricStore) -> None:
    """Make prometheus_client keep all values of this process in ``store``; call before any metric is made."""
    global _store
    _store = store
    # It has no other way to be told where values lie; a test holds that this one still works.
    values.MmapedDict = _StoredDict  # type: ignore[attr-defined]
    multiprocess.MmapedDict = _StoredDict  # type: ignore[attr-defined]


def current() -> MetricStore | None:
    """Return the store in use; None where values lie in plain files."""
    return _store


class _StoredDict(MmapedDict):
    """prometheus_client's dictionary of values in a slot of the store instead of in a file."""

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        if _store is None:
            raise RuntimeError("no store is in use")
        self._name = PurePath(filename).name
        self._m: Any = _store.map(self._name)
        self._capacity = SLOT_BYTES
        self._positions: dict[str, int] = {}
        #: Values of series for which the slot has no room; nobody else sees them.
        self._beyond: dict[str, tuple[float, float]] = {}
        self._used = _USED.unpack_from(self._m, 0)[0]
        if self._used == 0:
            self._used = 8
            self._m[: _USED.size] = _USED.pack(self._used)
        for key, _, _, position in self._read_all_values():  # type: ignore[no-untyped-call]
            self._positions[key] = position

    @staticmethod
    def read_all_values_from_file(filename: str) -> Iterator[tuple[str, float, float, int]]:
        if _store is None:
            raise RuntimeError("no store is in use")
        data = _store.read(PurePath(filename).name)
        found: Iterator[tuple[str, float, float, int]] = _read_all_values(data, len(data))  # type: ignore[no-untyped-call]
        return found

    def read_value(self, key: str) -> tuple[float, float]:
        if key in self._beyond or not self._has_room(key):
            return self._beyond.setdefault(key, (0.0, 0.0))
        found: tuple[float, float] = super().read_value(key)  # type: ignore[no-untyped-call]
        return found

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        position = self._positions.get(key)
        if position is not None:
            # Assigned at once, so that no reader sees a half of it. Some 17 of these are part of each POST.
            self._m[position : position + _VALUE_BYTES] = _VALUE.pack(value, timestamp)
        elif key in self._beyond or not self._has_room(key):
            self._beyond[key] = value, timestamp
        else:
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]

    def _has_room(self, key: str) -> bool:
        if key in self._positions:
            return True
        if self._used + len(key.encode()) + 16 + _VALUE_BYTES <= SLOT_BYTES:
            return True
        if not self._beyond:
            # In a thread of its own: prometheus_client's lock is held here, and the log counts its lines.
            text = "%s is full: further series of this process are not published"
            threading.Thread(target=log.error, args=(text, self._name), daemon=True).start()
        return False

    def close(self) -> None:
        if self._m is not None:
            self._m.close()
            self._m = None
