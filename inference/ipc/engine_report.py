"""Passes what an engine has loaded, or why it could not, to the supervisor, in a file of the private
folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger("inference.process")

#: File in which the supervisor names the models that serve, by version.
_SERVING = "serving.json"


class EngineReport:
    """Holds the report of the engine in a slot. ``folder`` is empty in programs without a supervisor."""

    def __init__(self, folder: str, slot: int) -> None:
        self._path = Path(folder) / f"engine-{slot}.json" if folder else None

    def write(self, *, sha256: Mapping[str, str] | None = None, error: str = "") -> None:
        """Report the digest of the loaded file of each version, or the error that ended the process."""
        if self._path is not None:
            _replace(self._path, {"sha256": dict(sha256 or {}), "error": error})

    @property
    def sha256(self) -> dict[str, str]:
        """Digest of the loaded file of each version; empty before all are loaded."""
        return dict(self._read().get("sha256", {}))

    @property
    def error(self) -> str:
        """Why the last process could not serve; empty if it did not say."""
        return str(self._read().get("error", ""))

    def clear(self) -> None:
        """Forget the report of an earlier process."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        return {} if self._path is None else _load(self._path)


def write_serving(folder: str, sha256: Mapping[str, str]) -> None:
    """Note which models serve, so that an engine that ends knows which series are not its own any more."""
    _replace(Path(folder) / _SERVING, sha256)


def read_serving(folder: str) -> dict[str, Any]:
    """Return the digests of the models that serve, by version; empty if they are not known."""
    return _load(Path(folder) / _SERVING) if folder else {}


def _replace(path: Path, document: Mapping[str, Any]) -> None:
    new = path.with_suffix(".new")
    try:
        new.write_text(json.dumps(dict(document)))
        new.replace(path)
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error)


def _load(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
