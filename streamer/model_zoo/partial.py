"""The unfinished file of a download: NAME.onnx.part and, beside it, whose beginning it is.

One process at a time holds it, by a lock on the file itself, so nothing is left that a crash could forget.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from streamer.model_zoo.errors import CannotWrite

#: Left free on the disk besides the file, for everybody else.
_SPARE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the bytes of an unfinished file come from, and how to tell that they still belong together."""

    url: str
    #: Strong entity tag of the server; empty where it gave none.
    etag: str = ""
    #: Size of the whole file in bytes; None where the server did not tell.
    total: int | None = None


class Partial:
    """An unfinished file that this process holds. Made by `hold`; every write is on disk at once."""

    def __init__(self, target: Path, file: FileIO) -> None:
        self.target = target
        self.path = _part_of(target)
        self._file = file
        self._note = _note_of(target)
        self.size = os.fstat(file.fileno()).st_size
        #: Whose beginning lies there; None where that is not known, so that it cannot be gone on with.
        self.origin = self._read_note()
        #: Whether the bytes came with more than one answer, so that they may not belong together.
        self.joined = False
        self._digest = hashlib.sha256()
        #: Bytes at the beginning of the file that ``_digest`` has seen.
        self._hashed = 0

    @classmethod
    def hold(cls, target: Path) -> Self | None:
        """Open the unfinished file of ``target`` for this process; None while another one has it.

        Raises CannotWrite.
        """
        path = _part_of(target)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            while True:
                file = path.open("a+b", buffering=0)
                with contextlib.ExitStack() as unless_held:
                    unless_held.callback(file.close)
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        return None
                    # Whoever had the lock may have moved this very file into place meanwhile.
                    if _same(path, file):
                        unless_held.pop_all()
                        return cls(target, file)
        except OSError as error:
            _refuse(path, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- content -------------------------------------------------------------------------------------

    def begin(self, origin: Origin) -> None:
        """Forget what is there and note whose beginning comes now. Raises CannotWrite."""
        try:
            self._file.truncate(0)
            self._note.write_text(json.dumps(dataclasses.asdict(origin)), encoding="utf-8")
        except OSError as error:
            _refuse(self.path, error)
        self.origin, self.size, self.joined = origin, 0, False
        self._digest, self._hashed = hashlib.sha256(), 0

    def append(self, data: bytes) -> None:
        """Write at the end. Raises CannotWrite, of a full disk among others."""
        view = memoryview(data)
        try:
            while view:  # an unbuffered file may take a part only
                view = view[self._file.write(view) :]
        except OSError as error:
            self.size = os.fstat(self._file.fileno()).st_size
            _refuse(self.path, error)
        if self._hashed == self.size:
            self._digest.update(data)
            self._hashed += len(data)
        self.size += len(data)

    def hash_on(self, limit: int) -> bool:
        """Hash up to ``limit`` more of the bytes that lie there; returns whether any are left."""
        data = os.pread(self._file.fileno(), min(limit, self.size - self._hashed), self._hashed)
        self._digest.update(data)
        self._hashed += len(data)
        return self._hashed < self.size and bool(data)

    def sha256(self) -> str:
        """Return the digest of all bytes. Raises ValueError when some were not hashed."""
        if self._hashed != self.size:
            raise ValueError(f"{self._hashed} of {self.size} bytes are hashed")
        return self._digest.hexdigest()

    def make_room(self, missing: int) -> None:
        """Raise CannotWrite when the disk has no room for ``missing`` more bytes."""
        free = shutil.disk_usage(self.path.parent).free
        if free < missing + _SPARE_BYTES:
            raise CannotWrite(
                f"{self.path.parent}: {missing} more bytes are needed and {_SPARE_BYTES} are to stay free; "
                f"the disk has {free}"
            )

    # -- end -----------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Move the file into place: on disk first, then renamed, so that nobody ever sees half of it."""
        try:
            os.fsync(self._file.fileno())
            self.path.replace(self.target)
            self._note.unlink(missing_ok=True)
            folder = os.open(self.target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            _refuse(self.target, error)

    def discard(self) -> None:
        """Remove the file and its note; what is in it belongs to nothing."""
        with contextlib.suppress(OSError):
            self._file.truncate(0)
        self.origin, self.size, self.joined = None, 0, False
        self._digest, self._hashed = hashlib.sha256(), 0

    def close(self) -> None:
        """Let others have it; an empty one is removed."""
        if self._file.closed:
            return
        if not self.size and _same(self.path, self._file):
            self.path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)
        self._file.close()

    def _read_note(self) -> Origin | None:
        """Return what the note says; None where it says nothing that can be used."""
        try:
            values = json.loads(self._note.read_text(encoding="utf-8"))
            origin = Origin(str(values["url"]), str(values["etag"]), values["total"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return origin if origin.total is None or isinstance(origin.total, int) else None


def _part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _note_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part.json")


def _same(path: Path, file: FileIO) -> bool:
    """Return whether ``path`` still names the open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _refuse(path: Path, error: OSError) -> NoReturn:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise CannotWrite(f"{path}: the disk is full; what has come is kept") from error
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        raise CannotWrite(f"{path}: {error.strerror}; --to DIR puts it elsewhere") from error
    raise CannotWrite(f"{path}: {error.strerror or error}") from error
