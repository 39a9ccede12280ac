"""One model of the catalogue: where its file is, what it must be, and what a manifest should say of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inference.core.errors import ModelRefused
from inference.models import fields
from inference.models.manifest import parse_manifest
from inference.models.model import Family
from streamer.model_zoo.address import check_address

#: onnx files are one protobuf message, which ends here; larger weights lie in further files.
MAX_BYTES = 1 << 31
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
#: A model of this name would take the catalogue for its manifest.
_RESERVED = "catalogue"
#: Fields of a manifest that `pull` fills in itself.
_OURS = ("sha256", "licence", "source")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A model that is known and can be pulled. ``input`` is width and height in pixels."""

    name: str
    title: str
    family: Family
    input: tuple[int, int]
    classes: int
    licence: str
    url: str
    #: Page on which the publisher offers the file.
    source: str
    #: Lower-case hex digest; None where none is known.
    sha256: str | None
    #: Size of the file in bytes; None where it is not known.
    size: int | None
    #: Class names, where the catalogue lists them.
    labels: tuple[str, ...] | None = None
    trained_on: str | None = None
    note: str | None = None
    #: Further fields for the manifest beside the file: what probing cannot know.
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """Name of the file once it is in place."""
        return f"{self.name}.onnx"


def parse_entry(values: object, position: int) -> Entry:
    """Parse one entry. Raises ValueError naming entry and field, what was found and what is allowed."""
    where = f"entry {position}"
    if not isinstance(values, dict):
        raise ValueError(f"{where}: expected an object; found {fields.shown(values)}")  # noqa: TRY004 - as all
    if isinstance(values.get("name"), str):
        where += f" (`{values['name'][:60]}`)"
    for name in values:
        if name not in _PARSERS:
            raise ValueError(
                f"{where}: expected only the fields {', '.join(_PARSERS)}; found field `{name[:60]}`"
            )
    known: dict[str, Any] = {}
    for name, parse in _PARSERS.items():
        if name not in values:
            if name in _OPTIONAL:
                continue
            unknown = ' ("unknown" is written as null)' if name in _NULLABLE else ""
            raise ValueError(f"{where}: expected field `{name}`{unknown}; found none")
        value = values[name]
        if value is None and name in _NULLABLE:
            known[name] = None
            continue
        try:
            known[name] = parse(value)
        except ValueError as error:
            also = ", or null where it is not known" if name in _NULLABLE else ""
            raise ValueError(
                f"{where}: expected field `{name}` to be {error}{also}; found {fields.shown(value)}"
            ) from None
    known["size"] = known.pop("bytes")
    known["classes"], known["labels"] = known["classes"]
    return Entry(**known)


def _name(value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value) or value == _RESERVED:
        raise ValueError(
            f"1 to 64 small letters, digits, dots, dashes and underscores, and not `{_RESERVED}`"
        )
    return value


def _classes(value: object) -> tuple[int, tuple[str, ...] | None]:
    """Return number and, where they are listed, names."""
    if isinstance(value, list):
        names = fields.labels(value)
        return len(names), names
    try:
        return fields.integer(1, fields.MAX_LABELS)(value), None
    except ValueError as error:
        raise ValueError(f"{error}, or a list of different class names") from None


def _manifest(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("an object of manifest fields")  # noqa: TRY004 - parsers raise ValueError
    for name in _OURS:
        if name in value:
            raise ValueError(f"an object without `{name}`, which the entry itself says")
    try:
        parse_manifest(json.dumps(value).encode(), "manifest")
    except ModelRefused as error:
        raise ValueError(f"an object of manifest fields, with {error.expected}") from None
    return dict(value)


_PARSERS: Mapping[str, fields.Parser] = {
    "name": _name,
    "title": fields.text,
    "family": fields.choice(Family),
    "input": fields.size,
    "classes": _classes,
    "licence": fields.text,
    "url": check_address,
    "source": check_address,
    "sha256": fields.sha256,
    "bytes": fields.integer(1, MAX_BYTES),
    "trained_on": fields.text,
    "note": fields.text,
    "manifest": _manifest,
}
_NULLABLE = frozenset({"sha256", "bytes"})
_OPTIONAL = frozenset({"trained_on", "note", "manifest"})
