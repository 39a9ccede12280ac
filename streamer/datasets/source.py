"""Where samples are read from: a folder that the service filled. Its neighbour is ``bucket``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from streamer.datasets.errors import BadRequest, CannotRead

SIDECARS, IMAGES = "v1/samples/", "v1/images/"


class Source(Protocol):
    """Reads objects by key; keys come in order."""

    def keys(self, prefix: str) -> Iterator[str]:
        """Return the keys that begin with ``prefix``, in order. Raises CannotRead."""

    def read(self, key: str) -> bytes:
        """Return one object. Raises CannotRead, FileNotFoundError when there is none."""


class FolderSource:
    """A folder with the layout of a bucket."""

    def __init__(self, folder: Path) -> None:
        """Raise BadRequest when it is not a folder of samples."""
        if not (folder / "v1").is_dir():
            raise BadRequest(f"{folder} holds no samples: there is no folder `v1` in it (see SAMPLES_DIR)")
        self._folder = folder

    def keys(self, prefix: str) -> Iterator[str]:
        """Return the keys that begin with ``prefix``, in order. Raises CannotRead."""
        try:
            paths = sorted(path for path in (self._folder / prefix).rglob("*") if path.is_file())
        except OSError as error:
            raise CannotRead(f"{self._folder / prefix}: {error.strerror or error}") from error
        for path in paths:
            if not path.name.startswith("."):  # being written
                yield path.relative_to(self._folder).as_posix()

    def read(self, key: str) -> bytes:
        """Return one object. Raises CannotRead, FileNotFoundError when there is none."""
        path = self._folder / key
        if self._folder.resolve() not in path.resolve().parents:
            raise CannotRead(f"key {key!r} leads out of {self._folder}")
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise CannotRead(f"{path}: {error.strerror or error}") from error
