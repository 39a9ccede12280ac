"""Stores the metric values of all processes of a replica in one shared memory file.

prometheus_client keeps the values of several processes in memory-mapped files. When the disk is full, writing
to such a file kills the process (SIGBUS), and the folder can be deleted. A memory file has neither problem.
It has a slot for each file that prometheus_client would make, with the same name and format.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import struct
import threading
from array import array
from collections.abc import Iterator
from pathlib import PurePath

from prometheus_client import multiprocess
from prometheus_client.mmap_dict import _read_all_values

log = logging.getLogger("inference.metric_store")

#: Size of a slot, enough for 5,000 series; the service has a few hundred. Unused pages take no memory.
SLOT_BYTES = 1 << 20
_NAME_BYTES = 64
#: prometheus_client makes a file for each type and each mode of gauges in each process.
SLOTS_PER_PROCESS = 8
_USED = struct.Struct("i")
_VALUE = struct.Struct("dd")
_NUMBER_BYTES = 8
#: Header before the first series; it contains the number of used bytes.
_HEAD_BYTES = 8


class MetricStore:
    """Holds the memory file. The supervisor creates the file, and its children open it by descriptor."""

    def __init__(self, *, processes: int = 0, fd: int | None = None) -> None:
        """Create a file for this number of processes, or open the one behind ``fd``."""
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
        """Return the memory of a file; create the file if necessary. Raises OSError without a free slot."""
        if len(name.encode()) > _NAME_BYTES:
            raise OSError(f"the name of a metric file is longer than {_NAME_BYTES} bytes: {name}")
        # The kernel releases this lock when the process dies.
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
        """Return the used bytes of a file. Raises FileNotFoundError when it does not exist."""
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


class MetricFile:
    """Holds one file of this process in the store: a number and a time for each key. Callers hold a lock."""

    def __init__(self, memory: mmap.mmap, name: str) -> None:
        self._name = name
        self._memory = memory
        #: The same memory as numbers.
        self._numbers = memoryview(memory).cast("d")
        self._used: int = _USED.unpack_from(memory, 0)[0] or _HEAD_BYTES
        #: Maps each key to the index of its number. This process continues the numbers of an earlier process
        #: with the same role.
        self._indices: dict[str, int] = {
            str(key): int(position) // _NUMBER_BYTES
            for key, _, _, position in _read_all_values(memory, self._used)  # type: ignore[no-untyped-call]
        }
        self._is_full = False

    def cells(self, key: str) -> tuple[memoryview[float], int]:
        """Return the memory and the index of the number of ``key``; its time follows it.

        When the file is full, this is private memory, which no other process reads.
        """
        index = self._indices.get(key)
        if index is None:
            index = self._add(key)
        return (self._numbers, index) if index is not None else (memoryview(array("d", (0.0, 0.0))), 0)

    def _add(self, key: str) -> int | None:
        """Write a new series in the format of prometheus_client and return its index; None in a full file."""
        text = key.encode()
        text += b" " * (_NUMBER_BYTES - (len(text) + _USED.size) % _NUMBER_BYTES)
        record = _USED.pack(len(key.encode())) + text + _VALUE.pack(0.0, 0.0)
        end = self._used + len(record)
        if end > SLOT_BYTES:
            self._report_full()
            return None
        self._memory[self._used : end] = record
        # Readers stop at this number, so it is written after the complete record.
        self._memory[: _USED.size] = _USED.pack(end)
        self._used = end
        self._indices[key] = (end - _VALUE.size) // _NUMBER_BYTES
        return self._indices[key]

    def _report_full(self) -> None:
        if not self._is_full:
            self._is_full = True
            # Log in a thread: the caller holds a lock that counting a log line needs, too.
            text = "%s is full: further series of this process are not published"
            threading.Thread(target=log.error, args=(text, self._name), daemon=True).start()


#: The store for all values of this process; None until :func:`use` is called.
_store: MetricStore | None = None
#: The files of this process.
_files: dict[str, MetricFile] = {}


def use(store: MetricStore) -> None:
    """Read and write all metrics of this process in ``store``; call before any metric is made."""
    global _store
    _store = store
    # prometheus_client has no setting for this. A test checks that the replacement still works.
    multiprocess.MmapedDict = _StoredFiles  # type: ignore[assignment, attr-defined]


def current() -> MetricStore | None:
    """Return the store in use; None when values are in ordinary files."""
    return _store


def own_file(name: str) -> MetricFile:
    """Return a file of this process. Raises RuntimeError without a store, and OSError without a free slot."""
    if _store is None:
        raise RuntimeError("no store is in use")
    if name not in _files:
        _files[name] = MetricFile(_store.map(name), name)
    return _files[name]


class _StoredFiles:
    """Replaces the class with which prometheus_client reads and merges the files of all processes."""

    @staticmethod
    def read_all_values_from_file(filename: str) -> Iterator[tuple[str, float, float, int]]:
        if _store is None:
            raise RuntimeError("no store is in use")
        data = _store.read(PurePath(filename).name)
        found: Iterator[tuple[str, float, float, int]] = _read_all_values(data, len(data))  # type: ignore[no-untyped-call]
        return found
