"""Keeps copies of the served models for later inference processes, in case the files change or disappear.

The first inference process that has loaded its models copies them into the private folder of the replica.
Every later one loads the copies, so that a replica serves the same models from its start to its end.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

from inference.models.manifest import manifest_path
from inference.models.onnx_header import external_files

log = logging.getLogger("inference.kept_models")

#: Largest part of the folder's free space that copies may take.
FREE_SHARE = 0.5


class ModelCopies:
    """Keeps copies below ``folder``, of at most ``max_bytes`` in total; none if ``folder`` is empty."""

    def __init__(self, folder: str, max_bytes: int) -> None:
        self._folder = Path(folder) / "models" if folder else None
        self._max_bytes = max_bytes

    def of(self, version: str, path: Path) -> Path | None:
        """Return the copy of the model that this version loaded from ``path``, or None."""
        if self._folder is None:
            return None
        copy = self._folder / version / path.name
        return copy if copy.is_file() else None

    def start_copying(self, models: Mapping[str, Path], digests: Mapping[str, str]) -> None:
        """Start a thread that copies the models. ``digests`` are the sha256 of the loaded files."""
        if self._folder is not None and self._max_bytes > 0:
            threading.Thread(
                target=self._keep, args=(dict(models), dict(digests)), name="keep-models", daemon=True
            ).start()

    def _keep(self, models: dict[str, Path], digests: dict[str, str]) -> None:
        for version, path in models.items():
            if self.of(version, path) is not None:
                continue
            try:
                self.keep(version, path, digests[version])
            except (OSError, ValueError) as error:
                log.warning(
                    "%s: no copy of %s is kept (%s): if the file changes or disappears, the service cannot "
                    "recover from a crash of the inference process until the file is back",
                    version,
                    path.name,
                    error,
                )

    def keep(self, version: str, path: Path, sha256: str) -> None:
        """Copy one model with its manifest and its external data.

        Raises OSError when there is no room or a file cannot be read, and ValueError when the file has
        changed since it was loaded.
        """
        if self._folder is None:
            return
        names = {path.name, *external_files(path)}
        if manifest_path(path).exists():
            names.add(manifest_path(path).name)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        total = sum((path.parent / name).stat().st_size for name in names)
        taken = sum(file.stat().st_size for file in self._folder.rglob("*") if file.is_file())
        if taken + total > self._max_bytes:
            raise OSError(f"{total >> 20} MiB are more than MODEL_KEEP_MAX_BYTES has left")
        free = os.statvfs(self._folder)
        if total > FREE_SHARE * free.f_bavail * free.f_frsize:
            raise OSError(f"{total >> 20} MiB are more than half of what is free in {self._folder}")
        # Copy under another name and rename at the end: an incomplete copy must never be loaded.
        unfinished = self._folder / f".{version}"
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            for name in names:
                target = unfinished / name
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                shutil.copyfile(path.parent / name, target)
            if not differs(unfinished / path.name, sha256):
                unfinished.rename(self._folder / version)
                return
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        shutil.rmtree(unfinished, ignore_errors=True)
        raise ValueError("the file has changed since it was loaded")


def differs(path: Path, sha256: str) -> bool:
    """Return whether a file is missing, cannot be read, or has another digest."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() != sha256
    except OSError:
        return True
