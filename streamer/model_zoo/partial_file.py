"""Keeps the partial file of a download, NAME.onnx.part, and a note that says where its bytes come from.

Only one process at a time can hold a partial file. It locks the file itself with flock, so a crash leaves no
stale lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from streamer.model_zoo.download_url import CannotWrite

#: Bytes that are hashed at a time; between two such steps, Ctrl-C and progress are handled.
HASH_CHUNK_BYTES = 4 << 20
#: Disk space that a download leaves free.
_SPARE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class DownloadSource:
    """States where the bytes of a partial file come from, and what identifies that version of the file."""

    url: str
    #: Strong entity tag that the server sent; empty if it sent none.
    etag: str = ""
    #: Size of the whole file in bytes; None if the server did not say.
    total: int | None = None


class PartialFile:
    """Gives access to a partial file that this process holds; `hold` opens it. Writes are unbuffered."""

    def __init__(self, target: Path, file: FileIO) -> None:
        self.target = target
        self.path = _part_of(target)
        self._file = file
        self._note = _note_of(target)
        self.size = os.fstat(file.fileno()).st_size
        #: Where the bytes come from; None if this is unknown, in which case the download cannot be resumed.
        self.source = self._read_note()
        #: Whether the bytes come from more than one response, and may therefore not belong together.
        self.joined = False
        self._digest = hashlib.sha256()
        #: Bytes at the start of the file that ``_digest`` includes.
        self._hashed = 0

    @classmethod
    def hold(cls, target: Path) -> Self | None:
        """Open and lock the partial file of ``target``; return None if another process holds it.

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
                    # The process that held the lock before may have renamed this file to its target.
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

    def begin(self, source: DownloadSource) -> None:
        """Empty the file and note where its bytes will come from. Raises CannotWrite."""
        try:
            self._file.truncate(0)
            self._note.write_text(json.dumps(dataclasses.asdict(source)), encoding="utf-8")
        except OSError as error:
            _refuse(self.path, error)
        self._reset(source)

    def append(self, data: bytes) -> None:
        """Write at the end. Raises CannotWrite, for example when the disk is full."""
        view = memoryview(data)
        try:
            while view:  # an unbuffered file may accept only a part
                view = view[self._file.write(view) :]
        except OSError as error:
            self.size = os.fstat(self._file.fileno()).st_size
            _refuse(self.path, error)
        if self._hashed == self.size:
            self._digest.update(data)
            self._hashed += len(data)
        self.size += len(data)

    def hash_on(self, limit: int) -> bool:
        """Hash up to ``limit`` more bytes of the file, and return whether any are left to hash."""
        data = os.pread(self._file.fileno(), min(limit, self.size - self._hashed), self._hashed)
        self._digest.update(data)
        self._hashed += len(data)
        return self._hashed < self.size and bool(data)

    def sha256(self) -> str:
        """Return the hex digest of all bytes. Raises ValueError when some were not hashed yet."""
        if self._hashed != self.size:
            raise ValueError(f"{self._hashed} of {self.size} bytes are hashed")
        return self._digest.hexdigest()

    def check_space(self, missing: int) -> None:
        """Raise CannotWrite when the disk has no space for ``missing`` more bytes."""
        free = shutil.disk_usage(self.path.parent).free
        if free < missing + _SPARE_BYTES:
            raise CannotWrite(
                f"{self.path.parent}: {missing} more bytes are needed and {_SPARE_BYTES} must stay free; "
                f"the disk has {free}"
            )

    # -- end -----------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Flush the file and rename it to its target, which is therefore always complete.

        Raises CannotWrite.
        """
        try:
            os.fsync(self._file.fileno())
            found = os.fstat(self._file.fileno()).st_size
            wanted = self.size
            if found != wanted:
                # The digest is that of the received bytes, so they must be all that the file has.
                self.discard()
                raise CannotWrite(
                    f"{self.path}: expected the {wanted} bytes that were received; found {found}. Another "
                    "process writes to it: the locks of this file system do not hold between machines"
                )
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
        """Empty the file, because its bytes do not belong to the wanted file."""
        with contextlib.suppress(OSError):
            self._file.truncate(0)
        self._reset(None)

    def close(self) -> None:
        """Remove the file if it is empty, and release the lock."""
        if self._file.closed:
            return
        if not self.size and _same(self.path, self._file):
            self.path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)
        self._file.close()

    def _reset(self, source: DownloadSource | None) -> None:
        self.source, self.size, self.joined = source, 0, False
        self._digest, self._hashed = hashlib.sha256(), 0

    def _read_note(self) -> DownloadSource | None:
        """Return the content of the note; None if it is missing or unusable."""
        try:
            values = json.loads(self._note.read_text(encoding="utf-8"))
            source = DownloadSource(str(values["url"]), str(values["etag"]), values["total"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return source if source.total is None or isinstance(source.total, int) else None


async def hash_file(path: Path, on_chunk: Callable[[], None]) -> str:
    """Return the sha256 of an installed file, in hex. Raises CannotWrite if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while data := stream.read(HASH_CHUNK_BYTES):
                digest.update(data)
                on_chunk()
                await asyncio.sleep(0)
    except OSError as error:
        raise CannotWrite(f"{path}: {error.strerror or error}") from error
    return digest.hexdigest()


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
        raise CannotWrite(f"{path}: the disk is full; what was received is kept") from error
    if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
        raise CannotWrite(
            f"{path}: the file system has no locks ({error.strerror}), without which downloads could mix; "
            "--to DIR installs elsewhere"
        ) from error
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        raise CannotWrite(f"{path}: {error.strerror}; --to DIR installs elsewhere") from error
    raise CannotWrite(f"{path}: {error.strerror or error}") from error
