"""The replica's private folder for files that end with it, and what dead predecessors have left of theirs."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import stat
import tempfile
from pathlib import Path

from streamer.supervisor.failures import CannotStart

log = logging.getLogger("streamer.supervisor")

_PREFIX = "streamer-"
_LOCK = "lock"


class PrivateFolder:
    """A folder of mode 0700 below TMPDIR, with a lock that the kernel releases when this process ends."""

    def __init__(self) -> None:
        """Make the folder. Raises CannotStart when there is no place for it."""
        try:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        except OSError as error:
            raise CannotStart(
                f"no folder for temporary files can be made: {error.strerror or error}; "
                "set TMPDIR to a folder that this user can write"
            ) from error
        #: -1 where the folder cannot hold a file, on a full disk for one: then nobody removes what is left.
        self._lock_fd = _locked(self.path)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock_fd >= 0:
            os.close(self._lock_fd)


def _locked(folder: Path) -> int:
    new = folder / f"{_LOCK}.new"
    try:
        fd = os.open(new, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        log.warning("%s cannot be locked (%s): if this process is killed, it stays behind", folder, error)
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Under its final name it is locked from the start, so nobody takes this folder for a dead one's.
        new.rename(folder / _LOCK)
    except OSError as error:  # a file system without locks
        log.warning("%s cannot be locked (%s): if this process is killed, it stays behind", folder, error)
        os.close(fd)
        return -1
    return fd


def remove_leftovers() -> None:
    """Remove the folders of this user's supervisors that were killed: nobody holds their locks any more."""
    with contextlib.suppress(OSError):
        for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):
                _remove_if_dead(folder)


def _remove_if_dead(folder: Path) -> None:
    """Remove one folder, unless it is alive or not ours. Raises OSError when it cannot be looked at."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return
    # Folders without a lock are another program's, or are just being made.
    fd = os.open(folder / _LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
        log.info("removed %s, left by a supervisor that was killed", folder)
    except BlockingIOError:
        pass  # its supervisor lives
    finally:
        os.close(fd)
