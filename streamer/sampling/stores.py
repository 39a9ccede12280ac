"""Chooses the store by the settings: a bucket, or the folder that needs nothing."""

from __future__ import annotations

from streamer.config.settings import Settings
from streamer.sampling.delivery import Store
from streamer.sampling.folder import FolderStore
from streamer.sampling.s3 import Bucket, S3Store


def bucket_of(settings: Settings) -> Bucket:
    """Return the bucket that the settings name."""
    return Bucket(
        name=settings.s3_bucket_name,
        prefix=settings.s3_prefix.strip("/"),
        endpoint=settings.s3_endpoint_url,
        region=settings.aws_region,
        encryption=settings.s3_encryption,
        timeout_s=settings.s3_timeout_s,
    )


def open_store(settings: Settings) -> tuple[Store, FolderStore | None]:
    """Return the store; a second time where it lies on the spool's disk and shares its limit."""
    if settings.uses_s3:
        return S3Store(bucket_of(settings)), None
    folder = FolderStore(settings.samples_dir)
    return folder, folder


def describe_store(settings: Settings) -> str:
    """Return where samples go, for the log."""
    if not settings.uses_s3:
        return str(settings.samples_dir)
    bucket = bucket_of(settings)
    where = f"s3://{bucket.name}/{bucket.prefix}".rstrip("/")
    return f"{where} at {bucket.endpoint}" if bucket.endpoint else where
