"""The store without S3: a folder with the same layout as a bucket. Its neighbour is ``delivery``."""

from __future__ import annotations

from pathlib import Path

from streamer.core.durable import FOLDER_MODE, write_durably
from streamer.sampling.errors import StoreUnavailable


class FolderStore:
    """Puts objects into files below ``folder``; putting one again replaces it by the same bytes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        #: None until they were counted.
        self._used_bytes: int | None = None

    @property
    def used_bytes(self) -> int:
        """Bytes of all objects here; walks the folder once, then keeps count of what it puts."""
        if self._used_bytes is None:
            self._used_bytes = sum(
                path.stat().st_size for path in (self._folder / "v1").rglob("*") if path.is_file()
            )
        return self._used_bytes

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store one object; ``content_type`` is for stores that keep it. Raises StoreUnavailable."""
        path = self._folder / key
        try:
            path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            before = path.stat().st_size if path.exists() else 0
            write_durably(path, body, path.with_name(f".{path.name}.new"))
        except OSError as error:
            raise StoreUnavailable(f"{path}: {error.strerror or error}") from error
        self._used_bytes = self.used_bytes + len(body) - before if self._used_bytes is not None else None

    async def close(self) -> None:
        """Nothing stays open."""
