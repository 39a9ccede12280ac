"""Downloads a model file into a folder; a download that fails installs no model.

`transfer` makes one attempt; this module repeats attempts, verifies the file and installs it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from inference.core.errors import ModelRefused
from inference.models.manifest import Manifest, manifest_path, read_manifest
from inference.models.model_file import check_file
from inference.models.onnx_header import NotOnnx, read_header
from streamer.client.options import Tls
from streamer.core.backoff import Backoff
from streamer.model_zoo.download import Download
from streamer.model_zoo.download_url import CannotWrite, Interrupted, NotTrusted, PullFailed, WrongFile
from streamer.model_zoo.model_folder import write_manifest
from streamer.model_zoo.partial_file import HASH_CHUNK_BYTES, PartialFile, hash_file
from streamer.model_zoo.registry import RegistryEntry, size_text
from streamer.model_zoo.transfer import Transfer, open_session

#: Consecutive attempts without any new bytes before a download is given up.
TRIES = 5
#: Attempts in all. Without this limit, a connection that is cut after each packet could be retried for days.
_MAX_ATTEMPTS = 200
STALL_S = 30.0
#: Interval, in seconds, at which this process tries to take a lock that another process holds.
_LOCK_POLL_S = 0.2
#: Shortest interval between two updates of the status line, seconds.
_STATUS_S = 0.1


class Reporter(Protocol):
    """Shows progress; `streamer.core.terminal.Terminal` is one."""

    def line(self, text: str) -> None:
        """Show a line."""

    def status(self, text: str) -> None:
        """Replace the status line."""

    def transfer(self, name: str, done: int, total: int | None) -> None:
        """Replace the status line by the progress of a download, in bytes."""


@dataclass(frozen=True, slots=True)
class PullOptions:
    """Holds the options of a download."""

    #: Accept a file without a known checksum.
    trust: bool = False
    #: Checksum from the caller, for an entry of the registry that has none.
    sha256: str | None = None
    #: Replace another file of the same name.
    force: bool = False
    stall_s: float = STALL_S
    tries: int = TRIES
    tls: Tls = field(default_factory=Tls)


@dataclass(frozen=True, slots=True)
class PullResult:
    """Describes an installed model."""

    path: Path
    sha256: str
    #: Whether the file was already installed, so that nothing was downloaded.
    was_installed: bool = False


async def pull(
    source: RegistryEntry | Download,
    folder: Path,
    report: Reporter,
    options: PullOptions,
    backoff: Backoff | None = None,
) -> PullResult:
    """Install a model file and its manifest in ``folder``; a failure changes no installed model.

    This call and later ones resume an interrupted download. If the call is cancelled, the received bytes are
    kept. Raises NotTrusted, PullFailed, WrongFile or CannotWrite.
    """
    download = source if isinstance(source, Download) else Download.of_entry(source)
    expected = download.sha256 or options.sha256
    if None not in (download.sha256, options.sha256) and download.sha256 != options.sha256:
        raise NotTrusted(
            f"{download.name}: --sha256 is {options.sha256}, but {download.sha256_from} says "
            f"{download.sha256}; one of them belongs to another file"
        )
    is_known = expected is not None and (download.is_pinned or options.sha256 is not None)
    if not is_known and not options.trust:
        raise NotTrusted(f"{download.name}: {download.unverified}")
    return await _Pull(
        download, folder / download.file_name, expected, report, options, backoff or Backoff()
    ).run()


class _Pull:
    """Runs one download, from checking the installed file to installing the new one."""

    def __init__(
        self,
        download: Download,
        target: Path,
        expected: str | None,
        report: Reporter,
        options: PullOptions,
        backoff: Backoff,
    ) -> None:
        self._download = download
        self._target = target
        self._expected = expected
        self._report = report
        self._options = options
        self._backoff = backoff
        self._status_at = 0.0

    async def run(self) -> PullResult:
        with await self._hold() as partial:
            installed = await self._check_installed()
            if installed is not None:
                return installed
            digest = await self._fetch(partial)
            self._check_kind(partial)
            # Write the manifest first: without its model it has no effect, but a model without its manifest
            # may be misread.
            self._write_manifest(digest)
            partial.finish()
        return PullResult(self._target, digest)

    async def _hold(self) -> PartialFile:
        """Lock the partial file, and wait while another process holds it."""
        partial = PartialFile.hold(self._target)
        if partial is None:
            self._report.line(
                f"{self._download.name}: another process is downloading it; waiting for that one"
            )
        while partial is None:
            await asyncio.sleep(_LOCK_POLL_S)
            partial = PartialFile.hold(self._target)
        return partial

    async def _check_installed(self) -> PullResult | None:
        """Return the installed file if it is the right one; None if there is none or ``force`` replaces it.

        Without a known checksum, any file counts as the right one unless ``force`` is set. Raises CannotWrite
        if another file has its name.
        """
        if not self._target.exists():
            return None
        digest = await hash_file(
            self._target, lambda: self._status(f"{self._download.name}  verifying the installed file")
        )
        if digest == self._expected or (self._expected is None and not self._options.force):
            return PullResult(self._target, digest, was_installed=True)
        if not self._options.force:
            raise CannotWrite(
                f"{self._target}: another file of this name exists, with sha256 {digest}; expected "
                f"{self._expected}. --force replaces it, --to installs elsewhere"
            )
        return None

    async def _fetch(self, partial: PartialFile) -> str:
        """Download and verify the file, and return its digest.

        If the checksum of a resumed download is wrong, its parts may not belong together, so this method
        downloads the whole file again.
        """
        await self._hash_rest(partial)
        while True:
            if not (partial.size and partial.sha256() == self._expected):
                if self._download.size is not None and partial.size >= self._download.size:
                    partial.discard()
                await self._transfer(partial)
                await self._hash_rest(partial)
            digest = partial.sha256()
            if self._expected is None:
                self._report.line(f"{self._download.name}: not verified; its sha256 is {digest}")
                return digest
            if digest == self._expected:
                self._report.line(f"{self._download.name}: sha256 is as expected")
                return digest
            joined = partial.joined
            partial.discard()
            if not joined:
                raise WrongFile(
                    f"{self._download.name}: expected sha256 {self._expected}; found {digest}. The file was "
                    f"changed in transit or by its publisher; nothing was installed{self._download.see}"
                )
            self._report.line(
                f"{self._download.name}: the parts do not belong together; downloading the whole file again"
            )

    async def _transfer(self, partial: PartialFile) -> None:
        """Repeat attempts until the file is complete.

        Raises PullFailed after too many attempts in a row that added no bytes, or after too many in all.
        """
        fruitless, reason = 0, ""
        origin, options = self._download.origin, self._options
        async with open_session(options.tls, options.stall_s, netrc=origin.uses_netrc) as session:
            transfer = Transfer(
                session,
                origin,
                partial,
                expected=self._download.size,
                verified=self._expected is not None,
                stall_s=self._options.stall_s,
                on_progress=self._show_progress,
            )
            for _ in range(_MAX_ATTEMPTS):
                before = partial.size
                try:
                    await transfer.run()
                except Interrupted as error:
                    if partial.size > before:
                        fruitless = 0
                        self._backoff.reset()
                    fruitless, reason = fruitless + 1, str(error)
                    if fruitless >= self._options.tries:
                        break
                    delay_s = self._backoff.next_s(error.retry_after_s)
                    self._report.line(f"{self._download.name}: {reason}; next attempt in {delay_s:.1f} s")
                    await asyncio.sleep(delay_s)
                else:
                    return
        kept = (
            f"; {size_text(partial.size)} are kept, and the same command resumes there"
            if partial.size
            else ""
        )
        raise PullFailed(
            f"{self._download.name}: {reason}; given up after {fruitless} attempts without progress{kept}"
        )

    async def _hash_rest(self, partial: PartialFile) -> None:
        """Hash the bytes that are not hashed yet, such as those that an earlier call received."""
        while partial.hash_on(HASH_CHUNK_BYTES):
            self._status(f"{self._download.name}  hashing the {size_text(partial.size)} received before")
            await asyncio.sleep(0)  # lets Ctrl-C interrupt the hashing

    def _check_kind(self, partial: PartialFile) -> None:
        """Raise WrongFile if the file is no ONNX model; skip the check if its checksum was verified."""
        if self._expected is not None:
            return
        try:
            check_file(partial.path, Manifest())
            read_header(partial.path)
        except (ModelRefused, NotOnnx) as error:
            found = error.found if isinstance(error, ModelRefused) else error
            partial.discard()
            raise WrongFile(f"{self._download.name}: expected an ONNX file; found {found}") from error

    def _write_manifest(self, digest: str) -> None:
        path = manifest_path(self._target)
        if path.exists() and not self._options.force:
            self._report.line(
                f"{self._download.name}: {path.name} exists and is not changed"
                f"{self._manifest_problem(digest)}"
            )
            return
        write_manifest(self._target, dict(self._download.manifest) | {"sha256": digest})

    def _manifest_problem(self, digest: str) -> str:
        """Return the end of a sentence, which says what is wrong with the existing manifest, or nothing."""
        try:
            sha256 = read_manifest(self._target).sha256
        except ModelRefused as error:
            return f", but the service refuses it: expected {error.expected}"
        return (
            ", but its `sha256` belongs to another file: correct it" if sha256 not in (None, digest) else ""
        )

    def _show_progress(self, done: int, total: int | None) -> None:
        self._limited(lambda: self._report.transfer(self._download.name, done, total or self._download.size))

    def _status(self, text: str) -> None:
        self._limited(lambda: self._report.status(text))

    def _limited(self, show: Callable[[], None]) -> None:
        """Update the status line, but not more often than `_STATUS_S`."""
        now = time.monotonic()
        if now - self._status_at >= _STATUS_S:
            self._status_at = now
            show()
