"""Keeps accepted samples, and files of drift rows, on disk until the store has them.

The spool flushes every sample that it accepts, and never deletes a sample to make room for another.

The folder contains ``ready/NAME.bin`` (the image) and ``ready/NAME.json`` (its sidecar, written last),
``aside/`` for files that are being written, ``dead/`` for samples that the store refuses, and ``lock``. One
process owns the folder. Its two threads may call methods at the same time: one accepts samples, the other
delivers them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamer.core.durable import FOLDER_MODE, flush, write_durably
from streamer.sampling.errors import SpoolBroken, SpoolFull, SpoolInUse

#: Part of the disk that is left free for others: this share of its size, but at most this many bytes.
FREE_SHARE = 0.1
FREE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class SpooledSample:
    """Holds one accepted sample."""

    name: str
    image: bytes
    sidecar: dict[str, Any]


class Spool:
    """Stores samples in a folder.

    Call ``open()``; then ``accept()`` in one thread, and ``oldest()``, ``read()`` and ``remove()`` in the
    other.
    """

    def __init__(self, folder: Path, limit_bytes: int, also_used: Callable[[], int] = lambda: 0) -> None:
        self._ready = folder / "ready"
        self._set_aside = folder / "aside"
        self._dead = folder / "dead"
        self._folder = folder
        self.limit_bytes = limit_bytes
        #: Returns the bytes outside the spool that count towards its limit: a store's on the same disk.
        self._also_used = also_used
        self._lock = threading.Lock()
        #: Bytes and time of acceptance (unix seconds) by name, oldest first. Guarded by the lock.
        self._items: dict[str, tuple[int, float]] = {}
        #: Bytes of dead samples, which count towards the limit.
        self._dead_bytes = 0
        #: None until the spool is open.
        self._lock_fd: int | None = None

    # -- life cycle ----------------------------------------------------------------------------------------

    def open(self) -> None:
        """Create and lock the folders, and find the samples that an earlier process accepted.

        Raises SpoolInUse, or SpoolBroken naming the folder.
        """
        try:
            for folder in (self._ready, self._set_aside, self._dead):
                folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            self._take_lock()
            for left in self._set_aside.iterdir():
                left.unlink()
            self._scan()
            # Detect now, and not with the first sample, if the folder cannot be written.
            write_durably(self._set_aside / "probe", b"", self._set_aside / "probe.new")
            (self._set_aside / "probe").unlink()
        except OSError as error:
            self.close()
            raise SpoolBroken(f"{self._folder}: {error.strerror or error}") from error

    def close(self) -> None:
        """Release the lock; all samples stay on disk."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def _take_lock(self) -> None:
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise SpoolInUse(f"{self._folder} is used by another replica; give each its own") from None
        self._lock_fd = descriptor

    def _scan(self) -> None:
        """Find complete samples, and delete incomplete ones.

        A sample is incomplete if a process ended while it accepted, removed or moved it.
        """
        found: list[tuple[float, str, int]] = []
        images = {path.stem for path in self._ready.glob("*.bin")}
        sidecars = {path.stem for path in self._ready.glob("*.json")}
        for name in images ^ sidecars:
            for half in (self._image(name), self._sidecar(name)):
                half.unlink(missing_ok=True)
        for name in images & sidecars:
            image, sidecar = self._image(name).stat(), self._sidecar(name).stat()
            found.append((sidecar.st_mtime, name, image.st_size + sidecar.st_size))
        self._items = {name: (size, at) for at, name, size in sorted(found)}
        self._dead_bytes = sum(path.stat().st_size for path in self._dead.iterdir())

    # -- accept ------------------------------------------------------------------------------------------

    def accept(self, name: str, image: bytes, sidecar: dict[str, Any], unix_s: float) -> bool:
        """Write one sample and flush it to the disk. Returns False if the spool has it already.

        Raises SpoolFull if there is no room for it, and SpoolBroken if the disk fails. In both cases, the
        spool does not keep the sample.
        """
        described = json.dumps(sidecar, ensure_ascii=False).encode()
        size = len(image) + len(described)
        with self._lock:
            if name in self._items:
                return False
        self._check_room(size)
        written = [self._image(name), self._sidecar(name)]
        try:
            write_durably(written[0], image, self._set_aside / "image", flush_folder=False)
            write_durably(written[1], described, self._set_aside / "sidecar", flush_folder=False)
            flush(self._ready)
        except OSError as error:
            for path in written:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
            raise SpoolBroken(f"{self._folder}: {error.strerror or error}") from error
        with self._lock:
            self._items[name] = (size, unix_s)
        return True

    def _check_room(self, size_bytes: int) -> None:
        used_bytes = self.used_bytes + self._also_used()
        if used_bytes + size_bytes > self.limit_bytes:
            raise SpoolFull(f"{used_bytes} of {self.limit_bytes} bytes are used")
        try:
            disk = os.statvfs(self._ready)
        except OSError as error:
            raise SpoolBroken(f"{self._folder}: {error.strerror or error}") from error
        floor_bytes = min(FREE_BYTES, FREE_SHARE * disk.f_blocks * disk.f_frsize)
        free_bytes = disk.f_bavail * disk.f_frsize
        if free_bytes - size_bytes < floor_bytes:
            raise SpoolFull(f"{free_bytes} bytes of the disk are free, {floor_bytes:.0f} are left to others")

    # -- deliver -----------------------------------------------------------------------------------------

    def oldest(self) -> list[str]:
        """Return the names of all samples, oldest first."""
        with self._lock:
            return list(self._items)

    def read(self, name: str) -> SpooledSample:
        """Return a sample. Raises SpoolBroken when its files cannot be read."""
        try:
            image = self._image(name).read_bytes()
            sidecar = json.loads(self._sidecar(name).read_bytes())
        except (OSError, ValueError) as error:
            raise SpoolBroken(f"{self._ready / name}: {error}") from error
        return SpooledSample(name, image, sidecar)

    def remove(self, name: str) -> None:
        """Delete a sample that the store has.

        The sidecar is deleted first, so that an incomplete sample never looks complete.
        """
        with contextlib.suppress(OSError):
            self._sidecar(name).unlink(missing_ok=True)
            self._image(name).unlink(missing_ok=True)
        with self._lock:
            self._items.pop(name, None)

    def move_to_dead(self, name: str) -> None:
        """Move a sample that the store keeps refusing to ``dead/``, where a person can examine it.

        Raises SpoolBroken when it cannot be moved.
        """
        try:
            # Move the image first: if the process ends after that, the next `open` deletes only the sidecar.
            for path in (self._image(name), self._sidecar(name)):
                path.rename(self._dead / path.name)
            flush(self._dead)
            flush(self._ready)
        except OSError as error:
            raise SpoolBroken(f"{self._dead}: {error.strerror or error}") from error
        with self._lock:
            size, _ = self._items.pop(name, (0, 0.0))
            self._dead_bytes += size

    # -- views ---------------------------------------------------------------------------------------

    @property
    def used_bytes(self) -> int:
        """Bytes of all samples, including dead ones."""
        with self._lock:
            return sum(size for size, _ in self._items.values()) + self._dead_bytes

    def bytes_of(self, prefix: str) -> int:
        """Return the bytes of those items whose names begin with ``prefix``."""
        with self._lock:
            return sum(size for name, (size, _) in self._items.items() if name.startswith(prefix))

    def __len__(self) -> int:
        with self._lock:
            return len(self._items)

    def oldest_s(self, unix_s: float) -> float:
        """Return the age of the oldest sample in seconds; 0 without samples."""
        with self._lock:
            return max((unix_s - at for _, at in self._items.values()), default=0.0)

    def _image(self, name: str) -> Path:
        return self._ready / f"{name}.bin"

    def _sidecar(self, name: str) -> Path:
        return self._ready / f"{name}.json"
