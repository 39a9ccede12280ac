"""The file of API keys: their names, digests, scopes, quotas and expiry, but not the keys themselves.

Keys are long and random, so they cannot be recovered from a plain SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import tomllib
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from streamer.access.identity import Identity, Quotas, Scope

MAX_FILE_BYTES = 4 << 20
MAX_KEYS = 10_000
#: Random bytes of a new key.
KEY_BYTES = 32
#: Prefix by which scanners recognise a leaked key in a repository or a log.
KEY_PREFIX = "rtv_"
#: Number of digits of a digest by which an identity names its key.
_KEY_DIGITS = 16

#: Fields whose values may be logged.
_HARMLESS_FIELD = re.compile(r"\.(scopes(\[\d+\])?|expires)$")

Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]


class BadKeyFile(Exception):
    """The file is invalid; the text names what was found and what is allowed, but no digest."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class QuotaEntry(_Part):
    """Quotas of one key; absent ones are not limited."""

    requests_per_s: Amount | None = None
    streams: Count | None = None
    sessions: Count | None = None
    bytes_per_s: Amount | None = None
    weight: Amount = 1.0


class KeyEntry(_Part):
    """One key of the file."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[list[Scope], Field(min_length=1)]
    expires: AwareDatetime | None = None
    quotas: QuotaEntry = QuotaEntry()

    def identity(self) -> Identity:
        """Return the identity of the key's holder."""
        return Identity(
            self.name,
            frozenset(self.scopes),
            Quotas(**self.quotas.model_dump()),
            until=None if self.expires is None else self.expires.timestamp(),
            key=self.sha256[:_KEY_DIGITS],
        )


class _File(_Part):
    keys: Annotated[list[KeyEntry], Field(max_length=MAX_KEYS)]


def digest_of(key: str) -> str:
    """Return the digest that the file contains for a key."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def read_key_file(path: Path) -> bytes:
    """Return the file's bytes. Raises BadKeyFile when it cannot be read or is too large."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadKeyFile(f"cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_FILE_BYTES:
        raise BadKeyFile(f"has more than {MAX_FILE_BYTES} bytes")
    return content


def parse_keys(content: bytes) -> dict[str, Identity]:
    """Return digest to identity of a JSON or TOML file. Raises BadKeyFile."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise BadKeyFile(f"is not UTF-8: byte {error.start}") from error
    try:
        entries = _File.model_validate_json(_as_json(text)).keys
    except ValidationError as error:
        raise BadKeyFile(_explain(error)) from error
    found: dict[str, Identity] = {}
    names: set[str] = set()
    for entry in entries:
        if entry.name in names:
            raise BadKeyFile(f"has two keys of the name {entry.name!r}; names must differ")
        if entry.sha256 in found:
            raise BadKeyFile(f"has the key of {entry.name!r} twice, under another name too")
        names.add(entry.name)
        found[entry.sha256] = entry.identity()
    return found


def _as_json(text: str) -> str:
    """Return TOML as JSON; what begins as JSON is returned as it is. Raises BadKeyFile."""
    if text.lstrip().startswith("{"):
        return text
    try:
        return json.dumps(tomllib.loads(text), default=_written)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadKeyFile(f"is neither JSON nor TOML: {str(error)[:200]}") from error


def _written(value: object) -> str:
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    raise BadKeyFile(f"contains a {type(value).__name__}, which no field of a key can have")


def _explain(error: ValidationError) -> str:
    """Name the first invalid field; its value is shown only if it cannot be a key entered by mistake."""
    first = error.errors(include_url=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    message = str(first["msg"])
    value = first.get("input")
    if _HARMLESS_FIELD.search(path) or isinstance(value, int | float):
        return f"field `{path}` is {value!r:.80}: {message}"
    return f"field `{path or 'keys'}`: {message}"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A new key, and its entry in the file."""

    key: str
    entry: KeyEntry

    def line(self, form: Literal["toml", "json"]) -> str:
        """Return the entry in the syntax of the file."""
        fields = self.entry.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        if form == "json":
            return json.dumps(fields)
        quotas = fields.pop("quotas", {})
        lines = ["[[keys]]"]
        for name, value in fields.items():
            # The only difference between TOML and JSON here: TOML writes a date without quotes.
            lines.append(f"{name} = {value if name == 'expires' else json.dumps(value)}")
        if quotas:
            inside = ", ".join(f"{name} = {value}" for name, value in quotas.items())
            lines.append(f"quotas = {{ {inside} }}")
        return "\n".join(lines)


def make_key(
    name: str, scopes: list[str], expires: datetime | None, quotas: dict[str, float | int]
) -> NewKey:
    """Return a new key. Raises BadKeyFile, which names the invalid field."""
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    fields = {"name": name, "sha256": digest_of(key), "scopes": scopes, "quotas": quotas}
    if expires is not None:
        fields["expires"] = expires.isoformat()
    try:
        entry = KeyEntry.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        raise BadKeyFile(_explain(error)) from error
    return NewKey(key, entry)
