"""Pictures of a folder, or one picture, in natural order; they go out as the files they are."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

from streamer.client.capture import Captured
from streamer.client.errors import SourceFailed

#: What OpenCV reads everywhere; the first four need no re-encoding.
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
#: Time between pictures that have none of their own.
DEFAULT_FPS = 5.0


class ImageFiles:
    """Pictures as files. ``fps`` gives them capture times."""

    live = False

    def __init__(self, path: Path, *, fps: float | None = None, loop: bool = False) -> None:
        self.shown = str(path)
        self._paths = list_images(path) if path.is_dir() else [path]
        self._interval_s = 1.0 / (fps or DEFAULT_FPS)
        self._loop = loop
        self.total = None if loop else len(self._paths)

    def frames(self, stop: threading.Event) -> Iterator[Captured]:
        """Yield the files' bytes; a file that cannot be read ends the source."""
        number = 0
        while not stop.is_set():
            for path in self._paths:
                if stop.is_set():
                    return
                try:
                    data = path.read_bytes()
                except OSError as error:
                    raise SourceFailed(f"{path}: {error.strerror or error}") from error
                yield Captured(number, number * self._interval_s, self._interval_s, data, path.name)
                number += 1
            if not self._loop:
                return


def list_images(folder: Path) -> list[Path]:
    """Return the pictures in a folder in natural order (2 before 10). Raises SourceFailed when none is."""
    try:
        found = [
            path
            for path in folder.iterdir()
            if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
        ]
    except OSError as error:
        raise SourceFailed(f"{folder}: {error.strerror or error}") from error
    if not found:
        raise SourceFailed(f"{folder}: holds no picture ({', '.join(SUFFIXES)})")
    return sorted(found, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key that reads runs of digits as numbers."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.casefold()) for part in parts]
