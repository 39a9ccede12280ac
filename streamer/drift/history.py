"""Keeps rows on disk, so that references can be learned and the last window survives a restart.

Each group has a folder with files of msgpack rows, named by the time of their first row. Each row is passed
to the kernel at once, and the kernel decides when to write it to the disk: a crash of the machine loses some
rows, a crash of the process at most one. The oldest files are deleted when the size limit is reached.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgpack
import numpy as np

from streamer.core.durable import FOLDER_MODE
from streamer.drift.rows import FEATURE_VERSION, NUMERIC, Row

#: A file covers at most this many seconds of rows. Whole files are deleted to make room.
FILE_S = 6 * 3600.0
#: At most this many files are open. For another one, the file that was not written to for longest is closed.
MAX_OPEN = 64
#: At most this many files are kept: clients choose the names of streams, and a disk has a limited number of
#: inodes.
MAX_FILES = 10_000
#: The size of the folder is checked once in this many rows.
CHECK_SIZE_EVERY = 2000


class History:
    """Keeps the rows of all groups; without a usable folder it keeps none, and no method fails.

    Call ``open()`` first.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        #: None until opened, and after a disk error.
        self._lock_fd: int | None = None
        #: Open file of each group, and the time of its first row.
        self._open: OrderedDict[str, tuple[BinaryIO, float]] = OrderedDict()
        self._until_size_check = 0

    def open(self) -> str:
        """Create and lock the folder; return why rows cannot be kept, or an empty text if they can."""
        if not self._limit_bytes:
            return "DRIFT_HISTORY_BYTES is 0"
        try:
            self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            # Names of groups contain no dot, so no group's folder can have this name.
            lock_fd = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            return f"{self._folder}: {error.strerror or error}"
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock_fd)
            return f"{self._folder} is used by another replica"
        self._lock_fd = lock_fd
        return ""

    @property
    def usable(self) -> bool:
        """Whether rows are kept: the folder is open and locked, and no disk error has occurred."""
        return self._lock_fd is not None

    def close(self) -> None:
        """Close all files and unlock the folder."""
        while self._open:
            self._close_file(next(iter(self._open)))
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def append(self, row: Row) -> None:
        """Write a row; after a disk error, this and all later rows are dropped."""
        if self._lock_fd is None:
            return
        try:
            file = self._file(row)
            file.write(_pack(row))
            file.flush()
            self._until_size_check -= 1
            if self._until_size_check <= 0:
                self._until_size_check = CHECK_SIZE_EVERY
                self._make_room()
        except OSError:
            self.close()

    def groups(self) -> list[str]:
        """Return the names of the groups that have rows."""
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if path.is_dir())

    def read(self, group: str, since: float) -> Iterator[Row]:
        """Yield the rows of a group captured at or after ``since``, oldest file first; skip damaged rows."""
        files = sorted((self._folder / group).glob("*.rows"), key=_first_row_s)
        for place, path in enumerate(files):
            if place + 1 < len(files) and _first_row_s(files[place + 1]) < since:
                continue
            with contextlib.suppress(OSError), path.open("rb") as file:
                yield from (row for row in _unpack(file, group) if row.at >= since)

    def _file(self, row: Row) -> BinaryIO:
        opened = self._open.get(row.stream)
        if opened is not None and 0 <= row.at - opened[1] < FILE_S:
            self._open.move_to_end(row.stream)
            return opened[0]
        if opened is not None:
            self._close_file(row.stream)
        folder = self._folder / row.stream
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        # Always begin a new file: in an old one, a crash may have truncated the last row, and rows after a
        # truncated row cannot be read.
        name = f"{row.at:.0f}-{time.monotonic_ns() % 10**9:09d}.rows"
        file = (folder / name).open("ab")
        self._open[row.stream] = file, row.at
        if len(self._open) > MAX_OPEN:
            self._close_file(next(iter(self._open)))
        return file

    def _close_file(self, group: str) -> None:
        file, _ = self._open.pop(group)
        with contextlib.suppress(OSError):
            file.close()

    def _make_room(self) -> None:
        found = [(_first_row_s(path), path.stat().st_size, path) for path in self._folder.glob("*/*.rows")]
        excess = sum(size for _, size, _ in found) - self._limit_bytes
        for place, (_, size, path) in enumerate(sorted(found)):
            if excess <= 0 and len(found) - place <= MAX_FILES:
                break
            path.unlink(missing_ok=True)
            excess -= size
            if not any(path.parent.iterdir()):
                shutil.rmtree(path.parent, ignore_errors=True)


def _first_row_s(path: Path) -> float:
    """Return the time in a file's name; 0 for files that this class did not write."""
    try:
        return float(path.name.split("-")[0])
    except ValueError:
        return 0.0


def _pack(row: Row) -> bytes:
    packed: bytes = msgpack.packb(
        (
            FEATURE_VERSION,
            row.at,
            row.session,
            row.model,
            np.asarray(row.numbers, "<f4").tobytes(),
            row.top_class,
            row.resolution,
            row.source,
            row.classes,
        )
    )
    return packed


def _unpack(file: BinaryIO, group: str) -> Iterator[Row]:
    unpacker = msgpack.Unpacker(file, use_list=False)
    try:
        for version, at, session, model, numbers, *categories in unpacker:
            values = np.frombuffer(numbers, "<f4")
            if version == FEATURE_VERSION and len(values) == len(NUMERIC):
                yield Row(at, group, session, model, values, *categories)
    except (ValueError, TypeError, msgpack.UnpackException):
        return  # the file is damaged here, so the rows after this place cannot be found
