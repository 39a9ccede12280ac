"""Writes the files of a report into a folder, or into a bucket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from streamer.config.settings import Settings
from streamer.core.durable import write_durably
from streamer.datasets.sample import CannotWrite
from streamer.datasets.source import SCHEME, parse_bucket
from streamer.sampling.errors import StoreError
from streamer.sampling.s3 import S3Store
from streamer.sampling.store import bucket_of

_TYPES = {".html": "text/html; charset=utf-8", ".json": "application/json"}


def write_files(place: str, files: Mapping[str, str], settings: Settings, end: float) -> str:
    """Write files below a folder or ``s3://BUCKET/PREFIX``; return where they are. Raises CannotWrite.

    In ``place``, ``%Y``, ``%m``, ``%d``, ``%H`` and ``%M`` stand for the ``end`` of the period (UTC).
    """
    if "%" in place:
        place = datetime.fromtimestamp(end, UTC).strftime(place)
    if place.startswith(SCHEME):
        asyncio.run(_put(place, files, settings))
    else:
        _write(Path(place), files)
    return place.rstrip("/")


def dump(document: Mapping[str, Any]) -> str:
    """Return a document as the text of a file."""
    return json.dumps(document, ensure_ascii=False, indent=2) + "\n"


def _write(folder: Path, files: Mapping[str, str]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_durably(folder / name, text.encode(), folder / f".{name}.new")
    except OSError as error:
        raise CannotWrite(f"{folder}: {error.strerror or error}") from error


async def _put(place: str, files: Mapping[str, str], settings: Settings) -> None:
    store = S3Store(parse_bucket(place, bucket_of(settings)))
    try:
        for name, text in files.items():
            await store.put(name, text.encode(), _TYPES[Path(name).suffix])
    except StoreError as error:
        raise CannotWrite(f"{place}: {error}") from error
    finally:
        await store.close()
