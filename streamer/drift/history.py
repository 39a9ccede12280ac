"""Rows on disk: from them a reference is made, and a new process knows the window that the last one saw.

A folder for each group, in it files of msgpack rows, named by the time they were begun. Written as rows come
and flushed by the kernel alone: a crash of the machine costs some rows, one of the process at most one. The
oldest files go when the limit is reached.
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
from streamer.drift.columns import FEATURE_VERSION, NUMERIC, Row

#: A file is closed after so many seconds of rows: what goes when room is needed is one file.
FILE_S = 6 * 3600.0
#: Files open at a time; a group that has not written for longest closes its own.
MAX_OPEN = 64
#: Files kept: names of streams are up to clients, and a disk has only so many.
MAX_FILES = 10_000
#: How often the folder's size is looked at, in rows.
WEIGH_EVERY = 2000


class History:
    """Construct, ``open()``; without a folder that can be used nothing is kept, and nothing fails."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        #: None until opened, and after the disk has failed.
        self._lock_fd: int | None = None
        #: Group to its open file and when that was begun.
        self._open: OrderedDict[str, tuple[BinaryIO, float]] = OrderedDict()
        self._until_weighed = 0

    def open(self) -> str:
        """Make and lock the folder; returns what keeps rows from being kept, empty when nothing does."""
        if not self._limit_bytes:
            return "DRIFT_HISTORY_BYTES is 0"
        try:
            self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            # No stream can have this name, and with it a folder in the way.
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

    def close(self) -> None:
        """Write out what is buffered."""
        while self._open:
            self._shut(next(iter(self._open)))
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def append(self, row: Row) -> None:
        """Keep a row. A disk that fails ends keeping."""
        if self._lock_fd is None:
            return
        try:
            file = self._file(row)
            file.write(_pack(row))
            file.flush()
            self._until_weighed -= 1
            if self._until_weighed <= 0:
                self._until_weighed = WEIGH_EVERY
                self._make_room()
        except OSError:
            self.close()

    def groups(self) -> list[str]:
        """Return the groups that have rows."""
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if path.is_dir())

    def read(self, group: str, since: float) -> Iterator[Row]:
        """Yield the rows of a group from then on, oldest file first. A cut end is passed over."""
        files = sorted((self._folder / group).glob("*.rows"), key=_begun)
        for place, path in enumerate(files):
            if place + 1 < len(files) and _begun(files[place + 1]) < since:
                continue
            with contextlib.suppress(OSError), path.open("rb") as file:
                yield from (row for row in _unpack(file, group) if row.at >= since)

    def _file(self, row: Row) -> BinaryIO:
        held = self._open.get(row.stream)
        if held is not None and 0 <= row.at - held[1] < FILE_S:
            self._open.move_to_end(row.stream)
            return held[0]
        if held is not None:
            self._shut(row.stream)
        folder = self._folder / row.stream
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        # Never the end of an old file: what a crash cut off there would hide what follows.
        name = f"{row.at:.0f}-{time.monotonic_ns() % 10**9:09d}.rows"
        file = (folder / name).open("ab")
        self._open[row.stream] = file, row.at
        if len(self._open) > MAX_OPEN:
            self._shut(next(iter(self._open)))
        return file

    def _shut(self, group: str) -> None:
        file, _ = self._open.pop(group)
        with contextlib.suppress(OSError):
            file.close()

    def _make_room(self) -> None:
        found = [(_begun(path), path.stat().st_size, path) for path in self._folder.glob("*/*.rows")]
        excess = sum(size for _, size, _ in found) - self._limit_bytes
        for place, (_, size, path) in enumerate(sorted(found)):
            if excess <= 0 and len(found) - place <= MAX_FILES:
                break
            path.unlink(missing_ok=True)
            excess -= size
            if not any(path.parent.iterdir()):
                shutil.rmtree(path.parent, ignore_errors=True)


def _begun(path: Path) -> float:
    """Return the time in a file's name; 0 in one that is not ours."""
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
        for version, at, session, model, numbers, *words in unpacker:
            values = np.frombuffer(numbers, "<f4")
            if version == FEATURE_VERSION and len(values) == len(NUMERIC):
                yield Row(at, group, session, model, values, *words)
    except (ValueError, TypeError, msgpack.UnpackException):
        return  # damaged: what follows cannot be told from it
