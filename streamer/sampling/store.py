"""Defines the interface of a store, implements it for a folder, and opens the store in the settings.

`s3` has the store in a bucket.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

from streamer.config.settings import Settings
from streamer.core.durable import FOLDER_MODE, write_durably
from streamer.drift.row_file import PREFIX as ROWS
from streamer.sampling.errors import StoreUnavailable
from streamer.sampling.s3 import Bucket, S3Store
from streamer.sampling.sidecar import LAYOUT

#: Files of drift rows may take this share of the limit of the folder of samples.
ROWS_SHARE = 0.25


class Store(Protocol):
    """Stores objects."""

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store one object, replacing an existing one. Raises StoreError."""

    async def close(self) -> None:
        """Release all resources. The caller must not call this while a ``put()`` runs."""


class FolderStore:
    """Stores objects as files below ``folder``, in the same layout as in a bucket.

    Days of drift rows are deleted, the oldest first, when all rows take more than ``rows_limit_bytes``.
    Samples are never deleted.
    """

    def __init__(self, folder: Path, rows_limit_bytes: int = 512 << 20) -> None:
        self._folder = folder
        self._rows_limit_bytes = rows_limit_bytes
        #: Bytes of samples and of rows; None until their files have been counted.
        self._used_bytes: int | None = None
        self._rows_bytes: int | None = None

    @property
    def used_bytes(self) -> int:
        """Bytes of all samples. The first call reads the whole folder; later calls use a running count."""
        if self._used_bytes is None:
            folders = (self._folder / LAYOUT / kind for kind in ("images", "samples"))
            self._used_bytes = sum(_bytes_below(folder) for folder in folders)
        return self._used_bytes

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store one object as a file, without its ``content_type``. Raises StoreUnavailable."""
        path = self._folder / key
        try:
            path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            before = path.stat().st_size if path.exists() else 0
            write_durably(path, body, path.with_name(f".{path.name}.new"))
            if key.startswith(ROWS):
                self._limit_rows(len(body) - before)
                return
        except OSError as error:
            raise StoreUnavailable(f"{path}: {error.strerror or error}") from error
        self._used_bytes = self.used_bytes + len(body) - before if self._used_bytes is not None else None

    def _limit_rows(self, added_bytes: int) -> None:
        folder = self._folder / ROWS
        if self._rows_bytes is None:
            self._rows_bytes = _bytes_below(folder)
        else:
            self._rows_bytes += added_bytes
        if self._rows_bytes > self._rows_limit_bytes:
            for day in sorted(folder.iterdir())[:-1]:
                self._rows_bytes -= _bytes_below(day)
                shutil.rmtree(day, ignore_errors=True)
                if self._rows_bytes <= self._rows_limit_bytes:
                    break

    async def close(self) -> None:
        """Do nothing: no file stays open."""


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def bucket_of(settings: Settings) -> Bucket:
    """Return the bucket that the settings describe."""
    return Bucket(
        name=settings.s3_bucket_name,
        prefix=settings.s3_prefix.strip("/"),
        endpoint=settings.s3_endpoint_url,
        region=settings.aws_region,
        encryption=settings.s3_encryption,
        timeout_s=settings.s3_timeout_s,
        addressing=settings.s3_addressing_style,
    )


def open_store(settings: Settings) -> tuple[Store, FolderStore | None]:
    """Return the store, and the same store again if it is a folder, else None.

    The caller adds the bytes of a folder to those of the spool, because both share a disk and a limit.
    """
    if settings.uses_s3:
        return S3Store(bucket_of(settings)), None
    folder = FolderStore(settings.samples_dir, int(ROWS_SHARE * settings.samples_max_bytes))
    return folder, folder


def describe_store(settings: Settings) -> str:
    """Return the place of the store, for the log."""
    if not settings.uses_s3:
        return str(settings.samples_dir)
    bucket = bucket_of(settings)
    where = f"s3://{bucket.name}/{bucket.prefix}".rstrip("/")
    return f"{where} at {bucket.endpoint}" if bucket.endpoint else where
