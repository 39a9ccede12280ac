"""Gets a model of the catalogue into a folder: whole and verified, or not at all. `transfer` does one try."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import aiohttp

from inference.core.errors import ModelRefused
from inference.models.manifest import Manifest, manifest_path, read_manifest
from inference.models.model_file import check_file
from streamer.client.backoff import Backoff
from streamer.client.tls import Tls
from streamer.model_zoo.amounts import size_text, transfer_line
from streamer.model_zoo.digest import PORTION, hash_file
from streamer.model_zoo.entry import Entry
from streamer.model_zoo.errors import CannotWrite, NotTrusted, PullFailed, WrongFile
from streamer.model_zoo.header import NotOnnx, read_header
from streamer.model_zoo.interruption import Interrupted
from streamer.model_zoo.manifest_file import write_manifest
from streamer.model_zoo.partial import Partial
from streamer.model_zoo.rate import ByteRate
from streamer.model_zoo.transfer import Transfer

#: Tries in a row that bring nothing before it is given up.
TRIES = 5
#: Tries in all: a connection that is cut after each packet would never come to an end.
_MOST_TRIES = 200
STALL_S = 30.0
_WAIT_S = 0.2
#: The status is drawn this often at most, seconds.
_STATUS_S = 0.1


class Reporter(Protocol):
    """Shows what goes on; `streamer.console.terminal.Terminal` is one."""

    def line(self, text: str) -> None:
        """Show a line."""

    def status(self, text: str) -> None:
        """Show the present status in place of the last one."""


@dataclass(frozen=True, slots=True)
class PullOptions:
    """How to pull."""

    #: Take a file of which no checksum is known.
    trust: bool = False
    #: Checksum that the caller has from elsewhere; wins where the catalogue has none.
    sha256: str | None = None
    #: Replace another file that is in the way.
    force: bool = False
    stall_s: float = STALL_S
    tries: int = TRIES
    tls: Tls = field(default_factory=Tls)


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model that is in place."""

    path: Path
    sha256: str
    #: Whether it was there before.
    was_there: bool = False


async def pull(
    entry: Entry, folder: Path, report: Reporter, options: PullOptions, backoff: Backoff | None = None
) -> Pulled:
    """Put ``entry``'s file and its manifest into ``folder``; whatever fails leaves what was there.

    A cut download is taken up again, now and by the next call. Raises NotTrusted, PullFailed, WrongFile or
    CannotWrite; cancelled, it keeps what has come.
    """
    expected = entry.sha256 or options.sha256
    if None not in (entry.sha256, options.sha256) and entry.sha256 != options.sha256:
        raise NotTrusted(
            f"{entry.name}: --sha256 is {options.sha256}, and the catalogue's is {entry.sha256}; "
            "one of them is of another file"
        )
    if expected is None and not options.trust:
        raise NotTrusted(
            f"{entry.name}: no checksum of this file is known, so nobody can tell whether the right one "
            f"comes. See {entry.source}; then give --sha256, or take it as it comes with --trust"
        )
    return await _Pull(entry, folder / entry.file_name, expected, report, options, backoff or Backoff()).run()


class _Pull:
    """One download, from the look at what is there to the file in place."""

    def __init__(
        self,
        entry: Entry,
        target: Path,
        expected: str | None,
        report: Reporter,
        options: PullOptions,
        backoff: Backoff,
    ) -> None:
        self._entry = entry
        self._target = target
        self._expected = expected
        self._report = report
        self._options = options
        self._backoff = backoff
        self._rate = ByteRate()
        self._drawn_at = 0.0

    async def run(self) -> Pulled:
        with await self._hold() as partial:
            there = await self._look()
            if there is not None:
                return there
            digest = await self._fetch(partial)
            self._check_kind(partial)
            # The manifest first: without its file it does nothing, the file without it may be misread.
            self._write_manifest(digest)
            partial.finish()
        return Pulled(self._target, digest)

    async def _hold(self) -> Partial:
        """Return the unfinished file; waits while another process has it."""
        partial = Partial.hold(self._target)
        if partial is None:
            self._report.line(f"{self._entry.name}: another process is getting it; waiting for that one")
        while partial is None:
            await asyncio.sleep(_WAIT_S)
            partial = Partial.hold(self._target)
        return partial

    async def _look(self) -> Pulled | None:
        """Return the file that is there already, if it will do. Raises CannotWrite for another one."""
        if not self._target.exists():
            return None
        digest = await hash_file(
            self._target, lambda: self._draw(f"{self._entry.name}  comparing the file that is there")
        )
        if digest == self._expected or (self._expected is None and not self._options.force):
            return Pulled(self._target, digest, was_there=True)
        if not self._options.force:
            raise CannotWrite(
                f"{self._target}: another file of this name is there, with sha256 {digest}; expected "
                f"{self._expected}. --force replaces it, --to puts this one elsewhere"
            )
        return None

    async def _fetch(self, partial: Partial) -> str:
        """Fetch and verify; returns the digest. Parts that make no whole are fetched anew, once."""
        await self._hash_rest(partial)
        while True:
            if not (partial.size and partial.sha256() == self._expected):
                if self._entry.size is not None and partial.size >= self._entry.size:
                    partial.discard()
                await self._transfer(partial)
                await self._hash_rest(partial)
            digest = partial.sha256()
            if self._expected is None:
                self._report.line(f"{self._entry.name}: not verified; sha256 {digest}")
                return digest
            if digest == self._expected:
                self._report.line(f"{self._entry.name}: sha256 is as expected")
                return digest
            joined = partial.joined
            partial.discard()
            if not joined:
                raise WrongFile(
                    f"{self._entry.name}: expected sha256 {self._expected}; found {digest}. The file was "
                    f"changed on the way or by its publisher; nothing was installed. See {self._entry.source}"
                )
            self._report.line(
                f"{self._entry.name}: the parts do not belong together; getting all of it again"
            )

    async def _transfer(self, partial: Partial) -> None:
        """Try until the file is complete or nothing comes any more."""
        in_vain, reason = 0, ""
        connector = aiohttp.TCPConnector(ssl=self._options.tls.context())
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._options.stall_s)
        # trust_env: HTTP_PROXY, HTTPS_PROXY, NO_PROXY and .netrc are honoured.
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, trust_env=True, auto_decompress=False
        ) as session:
            transfer = Transfer(
                session,
                self._entry.url,
                partial,
                expected=self._entry.size,
                verified=self._expected is not None,
                stall_s=self._options.stall_s,
                on_progress=self._show,
            )
            for _ in range(_MOST_TRIES):
                before = partial.size
                try:
                    await transfer.run()
                except Interrupted as error:
                    if partial.size > before:
                        in_vain = 0
                        self._backoff.reset()
                    in_vain, reason = in_vain + 1, str(error)
                    if in_vain >= self._options.tries:
                        break
                    delay_s = self._backoff.next_s(error.retry_after_s)
                    self._report.line(f"{self._entry.name}: {reason}; again in {delay_s:.1f} s")
                    await asyncio.sleep(delay_s)
                else:
                    return
        kept = (
            f"; {size_text(partial.size)} are kept, and the same command goes on there"
            if partial.size
            else ""
        )
        raise PullFailed(f"{self._entry.name}: {reason}; given up after {in_vain} tries in vain{kept}")

    async def _hash_rest(self, partial: Partial) -> None:
        """Hash what lies there and came with an earlier call."""
        while partial.hash_on(PORTION):
            self._draw(f"{self._entry.name}  checking the {size_text(partial.size)} that are there")
            await asyncio.sleep(0)  # lets Ctrl-C through

    def _check_kind(self, partial: Partial) -> None:
        """Raise WrongFile for what is no ONNX file; a checksum has told that already."""
        if self._expected is not None:
            return
        try:
            check_file(partial.path, Manifest())
            read_header(partial.path)
        except (ModelRefused, NotOnnx) as error:
            found = error.found if isinstance(error, ModelRefused) else error
            partial.discard()
            raise WrongFile(f"{self._entry.name}: expected an ONNX file; found {found}") from error

    def _write_manifest(self, digest: str) -> None:
        path = manifest_path(self._target)
        if path.exists() and not self._options.force:
            self._report.line(
                f"{self._entry.name}: {path.name} is there and stays as it is{self._doubt(digest)}"
            )
            return
        origin = {"licence": self._entry.licence, "source": self._entry.source, "sha256": digest}
        labels = {"labels": list(self._entry.labels)} if self._entry.labels else {}
        write_manifest(self._target, labels | dict(self._entry.manifest) | origin)

    def _doubt(self, digest: str) -> str:
        """Return what the service will not like about the manifest that stays, or an empty text."""
        try:
            theirs = read_manifest(self._target).sha256
        except ModelRefused as error:
            return f", but the service refuses it: expected {error.expected}"
        return ", but its `sha256` is of another file: correct it" if theirs not in (None, digest) else ""

    def _show(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        self._rate.mark(now, done)
        self._draw(transfer_line(self._entry.name, done, total or self._entry.size, self._rate.per_s()))

    def _draw(self, text: str) -> None:
        now = time.monotonic()
        if now - self._drawn_at >= _STATUS_S:
            self._drawn_at = now
            self._report.status(text)
