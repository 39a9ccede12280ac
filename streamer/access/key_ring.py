"""The keys that are valid now: those of the settings, and those of a file that may change at any time."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from streamer.access.audit import audit
from streamer.access.identity import ALL_SCOPES, Identity, Scope
from streamer.access.key_file import BadKeyFile, digest_of, parse_keys, read_key_file

log = logging.getLogger("streamer.http.key_ring")

#: Interval at which the file is checked for changes.
POLL_S = 1.0
#: Name of the copy that a worker uses if it starts while the file is invalid.
_COPY_NAME = "keys.last-good"

Stamp = tuple[int, int, int, int]


class KeyRing:
    """Stores only digests of keys. ``file`` is None without a key file.

    An invalid file leaves the keys as they were. ``folder`` is the replica's private folder; it contains a
    copy of the last valid file, so that a worker that restarts meanwhile has the same keys.
    """

    def __init__(self, keys: Iterable[str], file: Path | None, folder: Path) -> None:
        self._settled: Mapping[str, Identity] = {
            digest_of(key): Identity(f"api_keys:{number}", ALL_SCOPES) for number, key in enumerate(keys, 1)
        }
        self._file = file
        self._copy = folder / _COPY_NAME
        self._from_file: Mapping[str, Identity] = {}
        self._by_name: Mapping[str, Identity] = {}
        self._seen: Stamp | None = None
        self._content: bytes | None = None
        #: Why the present file is invalid; empty if it is in use.
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
        # Keys of the settings are chosen by people: comparing in constant time does not help to guess them.
        settled = [
            identity for known, identity in self._settled.items() if hmac.compare_digest(digest, known)
        ]
        # Keys of the file cannot be guessed, so the time of a look-up reveals nothing.
        identity = settled[0] if settled else self._from_file.get(digest)
        return identity if identity is not None and identity.is_current(time.time()) else None

    def holds(self, identity: Identity, scope: Scope) -> bool:
        """Whether the key with which a client was admitted is still valid for ``scope``.

        It is not if it was removed from the file, has expired or has lost the scope, or if another key now
        has its name.
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
            # In a thread, because the folder may be a mount that hangs.
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
        self.fault = ""
        self._content = content
        self._take(found)
        self._keep(content)
        if not first:
            audit("keys reloaded", keys=len(found))

    def _take(self, found: Mapping[str, Identity]) -> None:
        self._from_file = found
        self._by_name = {
            identity.name: identity for identity in (*self._settled.values(), *self._from_file.values())
        }

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
            # If a cleaner of temporary files has removed the folder, another user may have created it again.
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
