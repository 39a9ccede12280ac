"""Keeps the choice of models across restarts, in a small file beside the models.

The file is used only while the settings name the models under which it was written: who changes
`MODEL_V1_PATH` means the new file. Fields of other features, such as weights, are kept as they are.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamer.core.durable import write_durably
from streamer.versions.model_path import digest_of

log = logging.getLogger("streamer.versions")

#: Name of the file in the folder of models, if `VERSIONS_STATE_FILE` is not set.
DEFAULT_NAME = ".versions.json"
FORMAT = 1
#: A file with more bytes is not ours.
_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Names the file of a version. ``sha256`` is empty if it is not known."""

    path: Path
    sha256: str = ""


Assignment = Mapping[str, ModelFile]


@dataclass(frozen=True, slots=True)
class VersionsState:
    """Holds what is served, and what `rollback` goes back to."""

    current: Assignment
    #: None if there is nothing to go back to.
    previous: Assignment | None = None
    #: Unix time of the last change; 0 before the first.
    changed_at: float = 0.0
    #: Fields of other features by name, which must be JSON.
    extra: Mapping[str, Any] = field(default_factory=dict)


def state_path(configured: Mapping[str, Path], folder: Path | None, file: Path | None) -> Path:
    """Return the place of the file: ``file``, or in ``folder``, or beside the first configured model."""
    return file or (folder or next(iter(configured.values())).parent) / DEFAULT_NAME


class StateFile:
    """Reads and writes the file. ``configured`` are the models that the settings name, by version."""

    def __init__(self, path: Path, configured: Mapping[str, Path]) -> None:
        self.path = path
        self._configured = {version: str(file) for version, file in sorted(configured.items())}
        self._warned = False

    def restore(self) -> VersionsState:
        """Return the stored state, or that of a first start: the configured models."""
        state = self.read()
        if state is None:
            return VersionsState({v: ModelFile(Path(path)) for v, path in self._configured.items()})
        chosen = ", ".join(f"{version}={model.path.name}" for version, model in state.current.items())
        log.info("%s says what is served: %s; remove it to serve the configured models", self.path, chosen)
        return state

    def read(self) -> VersionsState | None:
        """Return the stored state; None, with one line in the log, if it cannot or must not be used."""
        try:
            if not self.path.is_file() or self.path.stat().st_size > _MAX_BYTES:
                return None
            document = json.loads(self.path.read_bytes())
            if document["format"] != FORMAT:
                raise ValueError(f"`format` is {document['format']!r:.40}; this release reads {FORMAT}")  # noqa: TRY301 - one place reports
            configured = document["configured"]
            state = VersionsState(
                _assignment(document["current"]),
                None if document["previous"] is None else _assignment(document["previous"]),
                float(document["changed_at"]),
                document.get("extra", {}),
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            log.error("%s is ignored, and the configured models are served: %r", self.path, error)  # noqa: TRY400 - complete
            return None
        if configured != self._configured:
            log.info(
                "%s is ignored: it was written while other models were configured (%s)", self.path, configured
            )
            return None
        for version, model in state.current.items():
            if digest_of(model.path) != model.sha256:
                log.error(
                    "%s is ignored, and the configured models are served: %s, which was served as %s, is "
                    "missing or has another content",
                    self.path,
                    model.path,
                    version,
                )
                return None
        return state

    def write(self, state: VersionsState) -> bool:
        """Write a state durably. Returns False, with one warning in the log, if that is not possible."""
        document = {
            "format": FORMAT,
            "configured": self._configured,
            "current": _entries(state.current),
            "previous": None if state.previous is None else _entries(state.previous),
            "changed_at": state.changed_at,
            "extra": dict(state.extra),
        }
        text = json.dumps(document, indent=1).encode() + b"\n"
        try:
            write_durably(self.path, text, self.path.with_name(self.path.name + ".new"))
        except OSError as error:
            if not self._warned:
                self._warned = True
                log.warning(
                    "%s cannot be written (%s): changes of versions do not survive a restart; set "
                    "VERSIONS_STATE_FILE to a file that can be written",
                    self.path,
                    error.strerror or error,
                )
            return False
        return True


def _entries(assignment: Assignment) -> dict[str, dict[str, str]]:
    return {
        version: {"path": str(model.path), "sha256": model.sha256} for version, model in assignment.items()
    }


def _assignment(entries: Mapping[str, Mapping[str, str]]) -> Assignment:
    """Return the models of a stored assignment. Raises KeyError, TypeError or ValueError for another form."""
    if not entries:
        raise ValueError("no version has a model")
    found = {version: ModelFile(Path(each["path"]), each["sha256"]) for version, each in entries.items()}
    if unknown := found.keys() - {"v1", "v2"}:
        raise ValueError(f"versions are v1 and v2; found {', '.join(sorted(unknown))}")
    return found
