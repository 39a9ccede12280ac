"""Writes files that are complete or absent even after a crash: a temporary file, fsync, rename, fsync."""

from __future__ import annotations

import os
from pathlib import Path

#: Samples may show people, so other users of the machine must not read them.
FILE_MODE = 0o600
FOLDER_MODE = 0o700


def write_durably(path: Path, data: bytes, aside: Path, *, flush_folder: bool = True) -> None:
    """Write ``data`` to ``path`` via ``aside``, a temporary path on the same file system. Raises OSError.

    Without ``flush_folder`` a crash may lose the name; a caller that writes several files flushes the folder
    once after them.
    """
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, FILE_MODE)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        aside.rename(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    if flush_folder:
        flush(path.parent)


def flush(folder: Path) -> None:
    """Make the names in a folder survive a power failure. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
