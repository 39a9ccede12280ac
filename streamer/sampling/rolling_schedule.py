"""Extends the drift reference in the background, between the updates that people make."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Protocol

from streamer.core.free_memory import return_free_memory
from streamer.drift.errors import ReferenceBroken
from streamer.drift.history import History
from streamer.drift.monitor import DriftConfig, Monitor
from streamer.drift.reference import Reference
from streamer.drift.rolling import drift_periods
from streamer.drift.rolling_state import RollingStatus
from streamer.sampling.drift_episodes import EpisodeKeeper
from streamer.sampling.rolling_reference import RollingReference

log = logging.getLogger("streamer.drift")

#: Seconds between two looks for days that are due.
LOOK_EVERY_S = 3600.0


class HasReference(Protocol):
    """What the schedule needs of the drift service."""

    config: DriftConfig
    path: Path
    history_folder: Path
    history: History
    monitor: Monitor
    episodes: EpisodeKeeper
    #: Whether somebody is replacing or extending the reference.
    updating: bool

    def is_current(self, reference: Reference) -> bool:
        """Return whether this is the reference in use, and that of the file."""
        ...

    def extend_reference(self, reference: Reference) -> None:
        """Score against the same reference with other days from now on."""
        ...


class RollingSchedule:
    """Looks once an hour, and after each new reference, whether days can be added.

    Call ``tick()`` regularly, and ``await close()``. Without `DRIFT_ROLLING_DAYS` it does nothing.
    """

    def __init__(self, service: HasReference) -> None:
        self._service = service
        self._rolling: RollingReference | None = None
        if service.config.rolling_days:
            self._rolling = RollingReference(
                service.path, service.history_folder, service.history, service.config
            )
        self._task: asyncio.Task[None] | None = None
        self._look_at = 0.0
        #: The reference at the last look.
        self._seen: Reference | None = None

    def tick(self) -> None:
        """Start to extend the reference if it may be due."""
        due = time.time() >= self._look_at or self._service.monitor.reference is not self._seen
        if self._rolling is not None and due and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self.extend())

    def describe(self) -> dict[str, RollingStatus]:
        """Return the status of each group; empty when the reference does not roll."""
        return self._rolling.describe() if self._rolling is not None else {}

    def sizes(self) -> dict[str, tuple[float, float]]:
        """Return what `RollingReference.sizes` does; empty when the reference does not roll."""
        return self._rolling.sizes() if self._rolling is not None else {}

    async def extend(self) -> None:
        """Judge the days that are due, and extend the reference by those that are accepted."""
        service, rolling = self._service, self._rolling
        reference = service.monitor.reference
        if rolling is None or reference is None or not service.history.usable or service.updating:
            return
        service.updating = True
        now = time.time()
        drift = {
            name: drift_periods(group.episode, now) for name, group in service.monitor.stored_groups().items()
        }
        try:
            extended = await asyncio.to_thread(rolling.extend, reference, drift, now)
            if extended is not None and service.is_current(reference):
                # Whichever of the two references a crash leaves behind, the episodes belong to it.
                await service.episodes.save(extended.reference.sha256)
                await asyncio.to_thread(rolling.publish, extended)
                service.extend_reference(extended.reference)
        except (OSError, ReferenceBroken, ValueError) as error:
            log.warning("the drift reference cannot be extended: %s", error)
        finally:
            self._seen, self._look_at = service.monitor.reference, now + LOOK_EVERY_S
            service.updating = False
            return_free_memory()

    async def close(self) -> None:
        """Cancel what is running."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
