"""Defines the interface of a store, implements it for a folder, and opens the store in the settings.

`s3` has the store in a bucket.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from streamer.config.settings import Settings
from streamer.core.durable import FOLDER_MODE, write_durably
from streamer.sampling.errors import StoreUnavailable
from streamer.sampling.s3 import Bucket, S3Store


class Store(Protocol):
    """Stores objects."""

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store one object, replacing an existing one. Raises StoreError."""

    async def close(self) -> None:
        """Release all resources. The caller must not call this while a ``put()`` runs."""


class FolderStore:
    """Stores objects as files below ``folder``, in the same layout as in a bucket."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        #: None until the files have been counted.
        self._used_bytes: int | None = None

    @property
    def used_bytes(self) -> int:
        """Bytes of all objects. The first call reads the whole folder; later calls use a running count."""
        if self._used_bytes is None:
            self._used_bytes = sum(
                path.stat().st_size for path in (self._folder / "v1").rglob("*") if path.is_file()
            )
        return self._used_bytes

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store one object as a file, without its ``content_type``. Raises StoreUnavailable."""
        path = self._folder / key
        try:
            path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            before = path.stat().st_size if path.exists() else 0
            write_durably(path, body, path.with_name(f".{path.name}.new"))
        except OSError as error:
            raise StoreUnavailable(f"{path}: {error.strerror or error}") from error
        self._used_bytes = self.used_bytes + len(body) - before if self._used_bytes is not None else None

    async def close(self) -> None:
        """Do nothing: no file stays open."""


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
    folder = FolderStore(settings.samples_dir)
    return folder, folder


def describe_store(settings: Settings) -> str:
    """Return the place of the store, for the log."""
    if not settings.uses_s3:
        return str(settings.samples_dir)
    bucket = bucket_of(settings)
    where = f"s3://{bucket.name}/{bucket.prefix}".rstrip("/")
    return f"{where} at {bucket.endpoint}" if bucket.endpoint else where
