"""Drafts of a model: in a hidden folder beside where the result goes, each with the original's manifest."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from inference.models import fields
from inference.models.manifest import manifest_path
from streamer.model_zoo.errors import CannotWrite
from streamer.model_zoo.model_folder import write_manifest


class Drafts:
    """A folder on the disk on which the result goes, so that moving it there is one step; gone at the end."""

    def __init__(self, source: Path, target: Path) -> None:
        self._target = target
        #: Fields of the original's manifest that hold for its offspring too; None where it has none.
        self._manifest = _inherited(source)
        #: None until entered.
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        beside = self._target.parent
        try:
            beside.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=".optimize-", dir=beside))
        except OSError as error:
            raise CannotWrite(f"{beside}: {error.strerror or error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def path(self, name: str) -> Path:
        """Return where a draft can be written; it is read as the original would be."""
        if self._folder is None:
            raise RuntimeError("drafts are made inside `with`")
        path = self._folder / f"{name}.onnx"
        if self._manifest is not None:
            write_manifest(path, self._manifest)
        return path

    def put_into_place(self, draft: Path, sha256: str, suffix: str) -> None:
        """Move a draft to the target, and the manifest beside it. Raises CannotWrite."""
        manifest = manifest_path(self._target)
        try:
            if self._manifest is None:
                # What lies there is of the file that is replaced.
                manifest.unlink(missing_ok=True)
            else:
                named = {"name": f"{self._manifest['name']}{suffix}"} if "name" in self._manifest else {}
                write_manifest(self._target, self._manifest | named | {"sha256": sha256})
            draft.replace(self._target)
        except OSError as error:
            raise CannotWrite(f"{self._target}: {error.strerror or error}") from error


def _inherited(source: Path) -> dict[str, Any] | None:
    """Return the manifest's fields but for the checksum; it was read before, so it is sound."""
    try:
        values = fields.read_object(manifest_path(source).read_bytes())
    except OSError:
        return None
    return {name: value for name, value in values.items() if name != "sha256"}
