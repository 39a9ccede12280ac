"""Saves the episodes of the drift monitor, and continues those of an earlier process."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from streamer.drift import episode_store
from streamer.drift.history import History
from streamer.drift.monitor import Monitor

#: An episode that goes on is saved again after this time: how long a process was away follows from the file.
SAVE_AGAIN_S = 3600.0

log = logging.getLogger("streamer.drift")


class EpisodeKeeper:
    """Keeps the episodes of a monitor in a file beside the history, while the history is usable.

    Call ``await remember()`` once, ``tick()`` regularly, and ``await close()`` before the history is closed.
    """

    def __init__(self, path: Path, monitor: Monitor, history: History) -> None:
        self._path = path
        self._monitor = monitor
        self._history = history
        #: Whether episodes have changed since the file was written.
        self.unsaved = False
        self._saving: asyncio.Task[None] | None = None
        self._saved_at = time.monotonic()

    async def remember(self) -> None:
        """Let the monitor continue the episodes that an earlier process has saved."""
        reference = self._monitor.reference
        self.unsaved = False
        if reference is None or not self._history.usable:
            return
        try:
            stored = await asyncio.to_thread(episode_store.load, self._path, reference.sha256, time.time())
        except ValueError as error:
            log.warning("earlier episodes and recurring changes are forgotten: %s", error)
            return
        self._monitor.remember(stored)

    def tick(self) -> None:
        """Save what has changed, and episodes that go on once an hour."""
        running = any(group.episode.running for group in self._monitor.groups.values())
        due = self.unsaved or (running and time.monotonic() - self._saved_at >= SAVE_AGAIN_S)
        if due and (self._saving is None or self._saving.done()):
            self._saving = asyncio.create_task(self.save())

    async def save(self, *others: str) -> None:
        """Write the file now; it also belongs to references with the digests ``others``."""
        self.unsaved, self._saved_at = False, time.monotonic()
        reference = self._monitor.reference
        if reference is None or not self._history.usable:
            return
        digests = (reference.sha256, *others)
        document = episode_store.dump(self._monitor.stored_groups(), digests, time.time())
        try:
            await asyncio.to_thread(episode_store.save, self._path, document)
        except OSError as error:
            log.warning("episodes are not kept: %s: %s", self._path, error.strerror or error)

    async def close(self) -> None:
        """Save what has changed, and when the process ended."""
        if self._saving is not None:
            await asyncio.gather(self._saving, return_exceptions=True)
        await self.save()
