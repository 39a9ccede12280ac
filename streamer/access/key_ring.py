"""Holds the API keys that are valid now: those in the settings, and those in a file that may change.

Keys are long and random, so they cannot be recovered from a plain SHA-256.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import time
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from datetime import time as time_of_day
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from streamer.access.identity import ALL_SCOPES, Identity, Quotas, Scope, audit

MAX_FILE_BYTES = 4 << 20
MAX_KEYS = 10_000
#: Random bytes of a new key.
KEY_BYTES = 32
#: Prefix with which scanners recognise a leaked key in a repository or a log.
KEY_PREFIX = "rtv_"
#: Number of digits of the digest that `Identity` keeps, to tell keys apart.
_KEY_DIGITS = 16

#: Fields whose values may be logged.
_HARMLESS_FIELD = re.compile(r"\.(scopes(\[\d+\])?|expires)$")

Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]


class BadKeyFile(Exception):
    """Raised for an invalid file; the text names what was found and what is allowed, but no digest."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class QuotaEntry(_Part):
    """Holds the quotas of one key; what is not set is not limited."""

    requests_per_s: Amount | None = None
    streams: Count | None = None
    sessions: Count | None = None
    bytes_per_s: Amount | None = None
    weight: Amount = 1.0


class KeyEntry(_Part):
    """Describes one key of the file."""

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
    """Return the identities in a JSON or TOML file, by the digest of their key. Raises BadKeyFile."""
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
    """Convert TOML to JSON; return text that begins as JSON unchanged. Raises BadKeyFile."""
    if text.lstrip().startswith("{"):
        return text
    try:
        return json.dumps(tomllib.loads(text), default=_written)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadKeyFile(f"is neither JSON nor TOML: {str(error)[:200]}") from error


def _written(value: object) -> str:
    if isinstance(value, datetime | date | time_of_day):
        return value.isoformat()
    raise BadKeyFile(f"contains a {type(value).__name__}, which no field of a key can have")


def _explain(error: ValidationError) -> str:
    """Describe the first invalid field, with its value only if that cannot be a key entered by mistake."""
    first = error.errors(include_url=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    message = str(first["msg"])
    value = first.get("input")
    if _HARMLESS_FIELD.search(path) or isinstance(value, int | float):
        return f"field `{path}` is {value!r:.80}: {message}"
    return f"field `{path or 'keys'}`: {message}"


@dataclass(frozen=True, slots=True)
class NewKey:
    """Holds a new key, and its entry for the file."""

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


log = logging.getLogger("streamer.http.key_ring")

#: Interval at which the file is checked for changes.
POLL_S = 1.0
#: Name of the copy that a worker uses if it starts while the file is invalid.
_COPY_NAME = "keys.last-good"

Stamp = tuple[int, int, int, int]


class KeyRing:
    """Finds the client that a key belongs to. It stores only digests. ``file`` is None without a key file.

    While the file is invalid, the earlier keys stay valid. ``folder`` is the replica's private folder; it
    contains a copy of the last valid file, so that a worker that restarts meanwhile has the same keys.
    """

    def __init__(
        self, keys: Iterable[str], file: Path | None, folder: Path, admin_keys: Collection[str] = ()
    ) -> None:
        """Take ``keys``, which are valid for everything unless there are ``admin_keys``."""
        scopes = ALL_SCOPES - {Scope.ADMIN} if admin_keys else ALL_SCOPES
        settled = {
            digest_of(key): Identity(f"api_keys:{number}", scopes) for number, key in enumerate(keys, 1)
        }
        for number, key in enumerate(admin_keys, 1):
            # A key that is in both settings has the rights of both.
            other = settled.get(digest_of(key))
            granted = {Scope.ADMIN} | (other.scopes if other else frozenset())
            settled[digest_of(key)] = Identity(f"admin_api_keys:{number}", frozenset(granted))
        self._settled: Mapping[str, Identity] = settled
        self._file = file
        self._copy = folder / _COPY_NAME
        self._from_file: Mapping[str, Identity] = {}
        self._by_name: Mapping[str, Identity] = {}
        self._seen: Stamp | None = None
        self._content: bytes | None = None
        #: Why the present file is invalid; empty if it is valid, or if no file is configured.
        self.fault = ""
        self._poller: asyncio.Task[None] | None = None
        self._load(first=True)
        self._take(self._from_file)

    @property
    def has_file(self) -> bool:
        """Whether there is a key file."""
        return self._file is not None

    def __len__(self) -> int:
        return len(self._settled) + len(self._from_file)

    def find(self, token: str) -> Identity | None:
        """Return the identity of the holder of ``token``; None if the key is unknown or expired."""
        digest = digest_of(token)
        # People choose the keys in the settings, so these keys may be guessable. They are compared in
        # constant time, so that the time of a look-up does not help to guess them.
        settled = [
            identity for known, identity in self._settled.items() if hmac.compare_digest(digest, known)
        ]
        # Keys of the file cannot be guessed, so the time of a look-up reveals nothing.
        identity = settled[0] if settled else self._from_file.get(digest)
        return identity if identity is not None and identity.is_current(time.time()) else None

    def is_still_valid(self, identity: Identity, scope: Scope) -> bool:
        """Return whether the key with which a client was admitted is still valid for ``scope``.

        It is not valid if it was removed from the file, has expired or has lost the scope, or if another key
        now has its name.
        """
        known = self._by_name.get(identity.name)
        if known is None or not known.may(scope) or not known.is_current(time.time()):
            return False
        # A ticket from a replica of an earlier release does not name its key.
        return identity.key in ("", known.key)

    def start(self) -> None:
        """Start checking the file for changes."""
        if self._file is not None:
            self._poller = asyncio.create_task(self._poll(), name="key-file")

    async def close(self) -> None:
        """Stop checking the file."""
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            # Read the file in a thread, because its folder may be a mount that hangs.
            await asyncio.to_thread(self._load)

    def _load(self, *, first: bool = False) -> None:
        """Read the file if it has changed. Never raises; `fault` says what is wrong with the file."""
        if self._file is None:
            return
        stamp = _stamp(self._file)
        if stamp == self._seen and not first:
            return
        self._seen = stamp
        try:
            content = read_key_file(self._file)
            if content == self._content:
                self.fault = ""
                return
            found = parse_keys(content)
        except BadKeyFile as error:
            self.fault = str(error)
            log.error(  # noqa: TRY400 - the message has the details
                "API_KEYS_FILE %s; the keys stay as they were: correct the file", error
            )
            if first:
                self._fall_back()
            return
        self._content = content
        self._take(found)
        self._keep(content)
        self.fault = ""  # last, because the event loop reads it while this runs in a thread
        if not first:
            audit("keys reloaded", keys=len(found))

    def _take(self, found: Mapping[str, Identity]) -> None:
        # Revoke before admitting: the event loop may look up keys between the two assignments.
        self._by_name = {identity.name: identity for identity in (*self._settled.values(), *found.values())}
        self._from_file = found

    def _keep(self, content: bytes) -> None:
        """Save a copy for workers that start while the file is invalid; it contains digests, not keys."""
        beside = self._copy.with_suffix(f".{os.getpid()}")
        try:
            beside.write_bytes(content)
            beside.replace(self._copy)
        except OSError as error:
            log.warning("cannot save a copy of the key file: %s", error.strerror or error)

    def _fall_back(self) -> None:
        try:
            # Check the owner: if a cleaner has removed the folder, another user may have created it again.
            content = read_key_file(self._copy) if self._copy.lstat().st_uid == os.geteuid() else b""
            self._take(parse_keys(content))
        except (BadKeyFile, OSError):
            log.error("there is no earlier copy of the key file: its keys are refused until it is corrected")  # noqa: TRY400


def _stamp(path: Path) -> Stamp | None:
    """Return values that change with the file, also when a mounted Secret is replaced through a link."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
