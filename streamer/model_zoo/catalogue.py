"""The catalogue file: models that are known by name. People read and extend it; `entry` parses its parts."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from inference.models import fields
from streamer.model_zoo.entry import Entry, parse_entry
from streamer.model_zoo.errors import BadRequest

#: Version of the format; another one is refused, not guessed at.
VERSION = 1
MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The models of one catalogue file, in its order."""

    path: Path
    entries: tuple[Entry, ...] = ()

    def get(self, name: str) -> Entry | None:
        """Return the entry of this name, or None."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def find(self, name: str) -> Entry:
        """Return the entry of this name. Raises BadRequest that names similar ones."""
        found = self.get(name)
        if found is not None:
            return found
        names = [entry.name for entry in self.entries]
        close = difflib.get_close_matches(name.lower(), names, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(names) or 'none'}"
        raise BadRequest(f"NAME {name!r} is not in {self.path}; {hint}")


def read_catalogue(path: Path) -> Catalogue:
    """Read a catalogue. Raises BadRequest naming file, entry, field, what was found and what is allowed."""
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadRequest(f"catalogue {path}: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise BadRequest(f"catalogue {path}: expected at most {MAX_BYTES} bytes; found more")
    try:
        return Catalogue(path, _parse(data))
    except ValueError as error:
        raise BadRequest(f"catalogue {path}: {error}") from error


def _parse(data: bytes) -> tuple[Entry, ...]:
    try:
        values = fields.read_object(data)
    except ValueError as error:
        raise ValueError(f"expected a JSON object in UTF-8; found {error}") from error
    for name in values:
        if name not in ("version", "about", "models"):
            raise ValueError(f"expected only the fields version, about, models; found field `{name[:60]}`")
    version = values.get("version")
    if version != VERSION or isinstance(version, bool):
        raise ValueError(f"expected `version` {VERSION}; found {fields.shown(version)}")
    models = values.get("models")
    if not isinstance(models, list):
        raise ValueError(  # noqa: TRY004 - one error for all that is wrong with a file
            f"expected `models` to be a list of entries; found {fields.shown(models)}"
        )
    entries = tuple(parse_entry(value, position) for position, value in enumerate(models, start=1))
    seen: set[str] = set()
    for position, entry in enumerate(entries, start=1):
        if entry.name in seen:
            raise ValueError(f"entry {position}: expected a name of its own; found `{entry.name}` again")
        seen.add(entry.name)
    return entries
