"""The option that names the collection to work on, and what it leads to."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamer.config.settings import SettingsError, load_settings
from streamer.datasets.bucket import SCHEME, BucketSource, parse_bucket
from streamer.datasets.errors import BadRequest
from streamer.datasets.source import FolderSource, Source
from streamer.sampling.stores import bucket_of


def add_origin(parser: argparse.ArgumentParser) -> None:
    """Add ``--in``."""
    parser.add_argument(
        "--in",
        dest="origin",
        metavar="PLACE",
        help="folder of samples, or s3://BUCKET/PREFIX (where the service's settings put them)",
    )


@contextmanager
def open_origin(arguments: argparse.Namespace) -> Iterator[Source]:
    """Return the collection. Raises BadRequest when it is none, CannotRead when it cannot be reached."""
    origin = arguments.origin or ""
    if origin and not origin.startswith(SCHEME):
        yield FolderSource(Path(origin))
        return
    try:
        settings = load_settings()
    except SettingsError as error:
        raise BadRequest(str(error)) from error
    if not origin and not settings.uses_s3:
        yield FolderSource(settings.samples_dir)
        return
    bucket = bucket_of(settings)
    with BucketSource(parse_bucket(origin, bucket) if origin else bucket) as source:
        yield source
