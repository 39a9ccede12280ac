"""Creates the replica's private folder for temporary files, and removes those of killed supervisors."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import stat
import tempfile
from pathlib import Path

from streamer.supervisor.restart_policy import CannotStart

log = logging.getLogger("streamer.supervisor")

_PREFIX = "streamer-"
_LOCK = "lock"


class PrivateFolder:
    """A folder of mode 0700 below TMPDIR, with a lock that the kernel releases when this process ends."""

    def __init__(self) -> None:
        """Create the folder. Raises CannotStart if that is not possible."""
        try:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        except OSError as error:
            raise CannotStart(
                f"cannot create a folder for temporary files: {error.strerror or error}; "
                "set TMPDIR to a folder to which this user can write"
            ) from error
        #: -1 if the lock cannot be created, for example on a full disk. If this process is then killed, no
        #: later supervisor removes the folder.
        self._lock_fd = _locked(self.path)

    def remove(self) -> None:
        """Remove the folder with its contents."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock_fd >= 0:
            os.close(self._lock_fd)


def _locked(folder: Path) -> int:
    new = folder / f"{_LOCK}.new"
    try:
        fd = os.open(new, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        log.warning("%s cannot be locked (%s): if this process is killed, it is not removed", folder, error)
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Rename the file only after locking it, so that no other supervisor takes this folder for a leftover.
        new.rename(folder / _LOCK)
    except OSError as error:  # the file system has no locks
        log.warning("%s cannot be locked (%s): if this process is killed, it is not removed", folder, error)
        os.close(fd)
        return -1
    return fd


def remove_leftovers() -> None:
    """Remove the folders that killed supervisors of this user left, which are those whose locks are free."""
    with contextlib.suppress(OSError):
        for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):
                _remove_if_dead(folder)


def _remove_if_dead(folder: Path) -> None:
    """Remove a folder unless it is in use or another user's. Raises OSError if its lock cannot be opened."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return
    # This fails for a folder without a lock file: it belongs to another program, is just being created, or
    # could not be locked.
    fd = os.open(folder / _LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
        log.info("removed %s, left by a supervisor that was killed", folder)
    except BlockingIOError:
        pass  # the supervisor of this folder still runs
    finally:
        os.close(fd)
