"""The sha256 of a finished file, in portions, so that Ctrl-C gets through and progress can be shown."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from pathlib import Path

from streamer.model_zoo.errors import CannotWrite

#: Bytes that are hashed without a pause.
PORTION = 4 << 20


async def hash_file(path: Path, on_portion: Callable[[], None]) -> str:
    """Return the hex digest. Raises CannotWrite when the file cannot be read: it is in the way then."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while data := stream.read(PORTION):
                digest.update(data)
                on_portion()
                await asyncio.sleep(0)
    except OSError as error:
        raise CannotWrite(f"{path}: {error.strerror or error}") from error
    return digest.hexdigest()
