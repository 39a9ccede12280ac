"""Reads the registry of known models, a JSON file that people extend, such as models/catalogue.json."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference.core.errors import ModelRefused
from inference.models import fields
from inference.models.class_names import number_apart
from inference.models.manifest import parse_manifest
from inference.models.model import Family
from streamer.model_zoo.download_url import BadRequest, check_url

#: Version of the format. Files of another version are refused.
VERSION = 1
#: Largest registry file, bytes.
MAX_FILE_BYTES = 1 << 20
#: Largest model, bytes: an ONNX file is one protobuf message, which cannot be larger. Larger models keep
#: their weights in further files.
MAX_MODEL_BYTES = 1 << 31
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
#: Units of sizes; each is a thousand times the one before.
_UNITS = ("kB", "MB", "GB")
#: A model must not have this name, because the service would read the registry as its manifest.
_RESERVED = "catalogue"
#: Fields of a manifest that `pull` sets itself.
_SET_BY_PULL = ("sha256", "licence", "source")


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryEntry:
    """Describes a known model that can be downloaded. ``input`` is width and height in pixels."""

    name: str
    title: str
    family: Family
    input: tuple[int, int]
    classes: int
    licence: str
    url: str
    #: Page on which the publisher offers the file.
    source: str
    #: Lower-case hex digest; None if unknown.
    sha256: str | None
    #: Size of the file in bytes; None if unknown.
    size: int | None
    #: Class names; None if the registry does not list them.
    labels: tuple[str, ...] | None = None
    trained_on: str | None = None
    note: str | None = None
    #: Further fields for the manifest of the installed file, which state what the file itself does not.
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """Name of the installed file."""
        return f"{self.name}.onnx"


@dataclass(frozen=True, slots=True)
class Registry:
    """Holds the models of one registry file, in the order of the file."""

    path: Path
    entries: tuple[RegistryEntry, ...] = ()

    def get(self, name: str) -> RegistryEntry | None:
        """Return the entry of this name, or None."""
        return next((entry for entry in self.entries if entry.name == name), None)

    def find(self, name: str) -> RegistryEntry:
        """Return the entry of this name. Raises BadRequest, which suggests similar names."""
        found = self.get(name)
        if found is not None:
            return found
        names = [entry.name for entry in self.entries]
        close = difflib.get_close_matches(name.lower(), names, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"known are {', '.join(names) or 'none'}"
        raise BadRequest(f"NAME {name!r} is not in {self.path}; {hint}")


def read_registry(path: Path) -> Registry:
    """Read a registry file.

    Raises BadRequest, which names file, entry and field, what was found and what is allowed.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadRequest(f"registry {path}: {error.strerror or error}") from error
    if len(data) > MAX_FILE_BYTES:
        raise BadRequest(f"registry {path}: expected at most {MAX_FILE_BYTES} bytes; found more")
    try:
        return Registry(path, _parse(data))
    except ValueError as error:
        raise BadRequest(f"registry {path}: {error}") from error


def _parse(data: bytes) -> tuple[RegistryEntry, ...]:
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
        raise ValueError(  # noqa: TRY004 - every fault of the file is a ValueError
            f"expected `models` to be a list of entries; found {fields.shown(models)}"
        )
    entries = tuple(parse_entry(value, position) for position, value in enumerate(models, start=1))
    seen: set[str] = set()
    for position, entry in enumerate(entries, start=1):
        if entry.name in seen:
            raise ValueError(f"entry {position}: expected a unique name; found `{entry.name}` again")
        seen.add(entry.name)
    return entries


def parse_entry(values: object, position: int) -> RegistryEntry:
    """Parse one entry.

    Raises ValueError, which names entry and field, what was found and what is allowed.
    """
    where = f"entry {position}"
    if not isinstance(values, dict):
        raise ValueError(f"{where}: expected an object; found {fields.shown(values)}")  # noqa: TRY004 - see above
    if isinstance(values.get("name"), str):
        where += f" (`{values['name'][:60]}`)"
    for name in values:
        if name not in _PARSERS:
            raise ValueError(
                f"{where}: expected only the fields {', '.join(_PARSERS)}; found field `{name[:60]}`"
            )
    parsed: dict[str, Any] = {}
    for name, parse in _PARSERS.items():
        if name not in values:
            if name in _OPTIONAL:
                continue
            null_hint = ' ("unknown" is written as null)' if name in _NULLABLE else ""
            raise ValueError(f"{where}: expected field `{name}`{null_hint}; found none")
        value = values[name]
        if value is None and name in _NULLABLE:
            parsed[name] = None
            continue
        try:
            parsed[name] = parse(value)
        except ValueError as error:
            null_hint = ", or null if it is unknown" if name in _NULLABLE else ""
            raise ValueError(
                f"{where}: expected field `{name}` to be {error}{null_hint}; found {fields.shown(value)}"
            ) from None
    parsed["size"] = parsed.pop("bytes")
    parsed["classes"], parsed["labels"] = parsed["classes"]
    return RegistryEntry(**parsed)


def check_name(value: object) -> str:
    """Return the name of a model. Raises ValueError, whose text says what is allowed."""
    if not isinstance(value, str) or not _NAME.fullmatch(value) or value == _RESERVED:
        raise ValueError(
            f"1 to 64 small letters, digits, dots, dashes and underscores, and not `{_RESERVED}`"
        )
    return value


def _classes(value: object) -> tuple[int, tuple[str, ...] | None]:
    """Return the number of classes, and their names if they are listed."""
    if isinstance(value, list):
        names = number_apart(fields.labels(value))
        return len(names), names
    try:
        return fields.integer(1, fields.MAX_LABELS)(value), None
    except ValueError as error:
        raise ValueError(f"{error}, or a list of class names") from None


def _manifest(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object of manifest fields")  # noqa: TRY004 - parsers raise ValueError
    for name in _SET_BY_PULL:
        if name in value:
            raise ValueError(f"an object without `{name}`, which is a field of the entry itself")
    try:
        parse_manifest(json.dumps(value).encode(), "manifest")
    except ModelRefused as error:
        raise ValueError(f"an object of manifest fields, with {error.expected}") from None
    return dict(value)


_PARSERS: Mapping[str, fields.Parser] = {
    "name": check_name,
    "title": fields.text,
    "family": fields.choice(Family),
    "input": fields.size,
    "classes": _classes,
    "licence": fields.text,
    "url": check_url,
    "source": check_url,
    "sha256": fields.sha256,
    "bytes": fields.integer(1, MAX_MODEL_BYTES),
    "trained_on": fields.text,
    "note": fields.text,
    "manifest": _manifest,
}
_NULLABLE = frozenset({"sha256", "bytes"})
_OPTIONAL = frozenset({"trained_on", "note", "manifest"})


def size_text(size: int | None) -> str:
    """Return a number of bytes in decimal units, as file managers and release pages do; ``?`` for None."""
    if size is None:
        return "?"
    if size < 1000:
        return f"{size} B"
    value = float(size)
    for unit in _UNITS:
        value /= 1000
        if value < 999.5:
            return f"{value:.1f} {unit}" if value < 99.95 else f"{value:.0f} {unit}"
    return f"{value:.0f} GB"
