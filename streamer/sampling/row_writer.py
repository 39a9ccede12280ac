"""Stores the drift rows of a replica where its samples go, so that all replicas can be judged together.

Every half hour the writer makes one file for each stream out of the rows in the history, and puts it into the
spool of samples, from which it is delivered like a sample. The history has each row before the writer does,
so a crash loses nothing: the next process makes the files that the last one did not. It makes the same file
with the same key again if it does not know that it was accepted; and two files may share rows, because a
process that is stopped writes what it has of the current half hour. Readers therefore count a row once, by
its replica and time.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import re
import secrets
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from streamer.config.settings import Settings
from streamer.core.durable import write_durably
from streamer.drift.history import History
from streamer.drift.row_file import FILE_S, RowFile, encode
from streamer.drift.rows import Row
from streamer.sampling.drift_service import DriftService
from streamer.sampling.errors import SpoolBroken, SpoolFull
from streamer.sampling.spool import Spool
from streamer.sampling.store import ROWS_SHARE

log = logging.getLogger("streamer.drift")

#: Seconds by which a row may arrive late; those that arrive later are not stored.
LATE_S = 60.0
#: The files of all replicas are written at times spread over so many seconds.
SPREAD_S = 60
#: Half hours older than this are not made up for.
MAX_BEHIND_S = 7 * 86_400.0
#: Seconds between two attempts while the spool accepts nothing, and between two lines of the log about it.
RETRY_S, LOG_EVERY_S = 60.0, 600.0
#: Names of files of rows in the spool begin with this.
SPOOL_NAME = "rows_"


class RowWriter:
    """Writes files of rows. Call ``open()``, ``tick()`` once a second, and ``await close()`` at the end.

    ``accepted`` is called after each file that the spool has accepted.
    """

    def __init__(
        self,
        history: History,
        spool: Spool,
        accepted: Callable[[], None],
        state_path: Path,
        *,
        interval_s: float,
        service_version: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._history = history
        self._spool = spool
        self._accepted = accepted
        self._path = state_path
        self._interval_s = interval_s
        self._service_version = service_version
        self._clock = clock
        #: Id of this replica; empty until opened.
        self.replica = ""
        #: All half hours before this time (unix seconds) are in the spool or the store.
        self._through = 0
        self._delay_s = LATE_S
        self._retry_at = self._next_log_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Continue where an earlier process ended; a new replica begins with the current half hour."""
        now = self._clock()
        try:
            found = json.loads(self._path.read_bytes())
            self.replica, self._through = str(found["replica"]), int(found["through"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning(
                "drift rows are stored as those of a new replica, %s is damaged: %r", self._path, error
            )
        if not self.replica:
            host = re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-")[:40] or "replica"
            self.replica, self._through = f"{host}-{secrets.token_hex(4)}", _half_hour(now)
            self._save()
        self._through = min(max(self._through, _half_hour(now - MAX_BEHIND_S)), _half_hour(now))
        self._delay_s = LATE_S + zlib.crc32(self.replica.encode()) % SPREAD_S

    def tick(self) -> None:
        """Begin to write the half hours that are over."""
        now = self._clock()
        busy = self._task is not None and not self._task.done()
        if not busy and now >= max(self._retry_at, self._through + FILE_S + self._delay_s):
            self._task = asyncio.create_task(self._write_all(now))

    async def written(self) -> None:
        """Wait until what ``tick()`` has begun is done."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def close(self) -> None:
        """Write all rows that there are, also those of the current half hour."""
        await self.written()
        await self._write_all(self._clock(), last=True)

    async def _write_all(self, now: float, *, last: bool = False) -> None:
        try:
            while now >= self._through + FILE_S + self._delay_s:
                await self._write(self._through)
                self._through += FILE_S
                self._save()
            for begin in range(self._through, _half_hour(now) + 1, FILE_S) if last else ():
                await self._write(begin)
        except (SpoolFull, SpoolBroken, OSError) as error:
            self._retry_at = self._clock() + RETRY_S
            if self._clock() >= self._next_log_at:
                self._next_log_at = self._clock() + LOG_EVERY_S
                log.error("drift rows wait in the history: %s", error)  # noqa: TRY400 - no traceback needed

    async def _write(self, begin: int) -> None:
        """Put the rows of a half hour into the spool. Raises SpoolFull or SpoolBroken."""
        for stream in await asyncio.to_thread(self._history.groups):
            made = await asyncio.to_thread(self._encode, stream, begin)
            if made is None:
                continue
            key, body = made
            waiting = self._spool.bytes_of(SPOOL_NAME)
            if waiting + len(body) > ROWS_SHARE * self._spool.limit_bytes:
                raise SpoolFull(f"{waiting} bytes of rows wait for the store")
            # The name has no slashes, and is as unique as the key.
            name = SPOOL_NAME + key.split("/", 2)[2].replace("/", "_")
            if self._spool.accept(name, body, {"rows": {"key": key}}, self._clock()):
                self._accepted()

    def _encode(self, stream: str, begin: int) -> tuple[str, bytes] | None:
        found = list(_rows_of(self._history.read(stream, begin), begin + FILE_S))
        if not found:
            return None
        file = RowFile(stream, self.replica, begin, self._interval_s, found)
        return encode(file, self._service_version)

    def _save(self) -> None:
        state = json.dumps({"replica": self.replica, "through": self._through}).encode()
        try:
            write_durably(self._path, state, self._path.with_name(f".{self._path.name}.new"))
        except OSError as error:
            # The same files are made again after a restart, which readers see.
            log.warning("what rows are stored cannot be noted: %s: %s", self._path, error.strerror or error)


def open_row_writer(
    settings: Settings,
    drift: DriftService | None,
    spool: Spool,
    wake: Callable[[], None],
    service_version: str,
) -> RowWriter | None:
    """Return the writer, opened; None if rows are not measured or the settings do not ask to store them.

    ``wake`` notifies the delivery of a new file in ``spool``, which must be open.
    """
    if drift is None or not settings.drift_rows:
        return None

    def accepted() -> None:
        drift.count_row_file()
        wake()

    writer = RowWriter(
        drift.history,
        spool,
        accepted,
        settings.samples_dir / ".spool" / "rows",
        interval_s=settings.drift_sample_interval_s,
        service_version=service_version,
    )
    writer.open()
    return writer


def _half_hour(unix_s: float) -> int:
    return int(unix_s // FILE_S) * FILE_S


def _rows_of(rows: Iterator[Row], end: float) -> Iterator[Row]:
    """Yield the rows before ``end``, from rows that are in order of time but for ``LATE_S``."""
    return (row for row in itertools.takewhile(lambda row: row.at < end + LATE_S, rows) if row.at < end)
