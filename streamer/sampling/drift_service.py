"""Monitors drift: turns candidates into rows, checks windows of rows and publishes the status.

The service runs in the sampling process. Only the event loop changes its state. Long work runs in threads,
and Evidently runs in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Mapping

from inference.ipc.shared_document import SharedDocument
from inference.ipc.shared_status import SharedStatus
from streamer.config.settings import Settings
from streamer.core.free_memory import return_free_memory
from streamer.drift import status
from streamer.drift.engine import NOT_INSTALLED, EvidentlyEngine, installed
from streamer.drift.errors import EngineFailed, ReferenceBroken
from streamer.drift.history import History
from streamer.drift.learned_reference import load
from streamer.drift.monitor import Check, DriftConfig, Monitor
from streamer.drift.reference import Reference
from streamer.drift.rows import Row
from streamer.drift.status_document import PublishedStatus
from streamer.imaging.image_header import ImageError
from streamer.sampling.candidate import UNNAMED, SampleCandidate
from streamer.sampling.candidate_image import Decode, decode_here
from streamer.sampling.drift_episodes import EpisodeKeeper
from streamer.sampling.feature_extractor import FeatureExtractor
from streamer.sampling.metrics import DriftMetrics, GrowingReference
from streamer.sampling.rolling_schedule import RollingSchedule

log = logging.getLogger("streamer.drift")

#: Seconds by which a row may arrive late. Unless a newer row arrives first, a window is checked only this
#: long after its end.
LATE_S = 30.0
PUBLISH_EVERY_S = 10.0
#: Seconds after which an episode that continues is logged again.
REMIND_AFTER_S = 86_400.0
#: Seconds of rows that a new process reads from the history: the longest mean, and the window before it.
RESTORED_S = 7 * 3600.0
#: Largest number of checks that wait for Evidently. The builtin engine decides all further ones.
MAX_PENDING = 512


class DriftService:
    """Monitors the drift of all groups.

    Call ``await open()``, then ``add()`` with candidates, ``tick()`` once a second, and ``close()``.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: DriftMetrics,
        document: SharedDocument,
        shared_status: SharedStatus,
        decode: Decode = decode_here,
    ) -> None:
        self.config = DriftConfig.of(settings)
        self.path = settings.reference_data_path
        self.monitor = Monitor(self.config, lambda name: name == UNNAMED)
        self.history_folder = settings.samples_dir / ".drift"
        self.history = History(self.history_folder, settings.drift_history_bytes)
        self.episodes = EpisodeKeeper(self.history_folder / ".episodes.json", self.monitor, self.history)
        self.rolling = RollingSchedule(self)
        #: Whether somebody is replacing or extending the reference.
        self.updating = False
        self.engine = EvidentlyEngine(
            settings.drift_engine_timeout_s,
            enabled=settings.drift_engine != "builtin",
            count_failure=lambda reason: metrics.failures.labels(reason).inc(),
        )
        self._metrics = metrics
        self._document = document
        self._shared_status = shared_status
        self._extractor = FeatureExtractor(self.config.interval_s, decode)
        #: Why the reference file cannot be used; empty when it can, or when there is none.
        self.error = ""
        #: Modification time (ns) and size of the reference file that was read last.
        self._file_signature: tuple[int, int] | None = None
        self._reading: asyncio.Task[None] | None = None
        #: Checks that wait for scores of Evidently, and the later checks that must be settled after them.
        self._pending: list[Check] = []
        self._settling: asyncio.Task[None] | None = None
        self._check_seconds = 0.0
        self._published_at = -math.inf
        #: By group: the end of the window for which its episode was logged last.
        self._logged_at: dict[str, float] = {}
        #: Groups with labels in the metrics.
        self._labelled: set[str] = set()

    # -- life cycle ----------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read the reference, and restore the rows of the last hours from the history."""
        problem = await asyncio.to_thread(self.history.open)
        if problem:
            log.warning("drift rows are not kept, so no reference can be learned from them: %s", problem)
        if self.engine.enabled and not installed():
            log.info(
                "the builtin engine decides about drift, and there is no drift report: %s", NOT_INSTALLED
            )
        await self._read_reference()
        await self.episodes.remember()
        for row in await asyncio.to_thread(self._last_rows):
            self.monitor.restore(row)
        for name, group in self.monitor.groups.items():
            self._metrics.active.labels(self._metrics.label(name)).set(group.episode.on)
        self._publish()

    async def close(self) -> None:
        """Cancel running work, save the episodes and close the history; its rows are on disk already."""
        for task in (self._settling, self._reading):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self.rolling.close()
        await self.episodes.close()
        self.history.close()

    def _last_rows(self) -> list[Row]:
        # Longer means than a window need rows from before it, too.
        since = time.time() - max(RESTORED_S, self.config.window_s)
        return [row for group in self.history.groups() for row in self.history.read(group, since)]

    # -- rows ----------------------------------------------------------------------------------------

    def add(self, candidate: SampleCandidate) -> None:
        """Turn the candidate into a row if its stream is due for one."""
        try:
            row = self._extractor.extract(candidate)
        except (ImageError, MemoryError):
            self._metrics.failures.labels("damaged").inc()
            return
        if row is not None:
            self._metrics.taken.inc()
            self.history.append(row)
            self._handle(self.monitor.add(row))

    def tick(self) -> None:
        """Check windows even when no rows come, look for a new reference file, and publish the status.

        The process calls this once a second.
        """
        self._handle(self.monitor.advance(time.time() - LATE_S) if self.monitor.next_check else [])
        if time.monotonic() - self._published_at < PUBLISH_EVERY_S:
            return
        if not self.updating and (self._reading is None or self._reading.done()):
            self._reading = asyncio.create_task(self._read_reference())
        self.episodes.tick()
        self.rolling.tick()
        self._publish()

    # -- samples -------------------------------------------------------------------------------------

    def wants_sample(self, candidate: SampleCandidate) -> bool:
        """Whether the candidate is worth labelling because its group is in drift."""
        return self.monitor.wants_sample(candidate.stream.name)

    def sample_taken(self, candidate: SampleCandidate) -> None:
        """Count a sample that was kept because its group is in drift."""
        self.monitor.sample_taken(candidate.stream.name)

    def count_row_file(self) -> None:
        """Count a file of rows that was accepted for the store."""
        self._metrics.row_files.inc()

    # -- the reference -------------------------------------------------------------------------------

    def set_reference(self, reference: Reference | None, error: str = "") -> None:
        """Score against ``reference`` from now on; if it is None, ``error`` says why, or is empty."""
        self._pending.clear()
        self.error = error
        self.monitor.set_reference(reference)
        self.episodes.unsaved = True
        self._file_signature = self._read_signature()
        self._publish()

    def extend_reference(self, reference: Reference) -> None:
        """Score against the same reference with other days from now on; its file has just been written."""
        self.monitor.extend_reference(reference)
        self.episodes.unsaved = True
        self._file_signature = self._read_signature()
        self._publish()

    def is_current(self, reference: Reference) -> bool:
        """Return whether this is the reference in use, and that of the file."""
        return self.monitor.reference is reference and self._read_signature() == self._file_signature

    async def _read_reference(self) -> None:
        """Read the reference file if it has changed."""
        signature = self._read_signature()
        if signature == self._file_signature:
            return
        self._file_signature = signature
        try:
            reference = await asyncio.to_thread(
                load, self.path, window_s=self.config.window_s, alpha=self.config.alpha
            )
        except ReferenceBroken as error:
            log.error("drift is not monitored: %s (REFERENCE_DATA_PATH)", error)  # noqa: TRY400 - no traceback needed
            self.set_reference(None, str(error))
            return
        finally:
            return_free_memory()
        self.set_reference(reference)
        if reference is not None:
            log.info("drift reference: %s, created %s", self.path, reference.created or "at an unknown time")

    def _read_signature(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size

    # -- checks --------------------------------------------------------------------------------------

    @property
    def _is_settling(self) -> bool:
        return self._settling is not None and not self._settling.done()

    def _handle(self, checks: list[Check]) -> None:
        """Settle checks in order. A check for Evidently waits for its scores, as do all checks after it."""
        for check in checks:
            check.ask = check.ask and self.engine.available and len(self._pending) < MAX_PENDING
            if self._pending or check.ask or self._is_settling:
                self._pending.append(check)
            else:
                self._settle(check, None)
        if self._pending and not self._is_settling:
            self._settling = asyncio.create_task(self._settle_pending())
        elif checks:
            self._publish()

    async def _settle_pending(self) -> None:
        while self._pending:
            begun = time.monotonic()
            batch = self._next_batch()
            asked = [check for check in batch if check.ask]
            reference = self.monitor.reference
            scores: Mapping[str, Mapping[str, float]] = {}
            if asked:
                try:
                    scores = (await self.engine.score(asked, reference)).scores
                except EngineFailed as error:
                    log.warning("the builtin engine decides: %s", error)
            if self.monitor.reference is not reference:
                continue  # the reference was replaced meanwhile, so these scores are void
            for check in batch:
                self._settle(check, scores.get(check.group) if check.ask else None)
            self._check_seconds = time.monotonic() - begun
            self._metrics.check_s.observe(self._check_seconds)
            self._publish()

    def _next_batch(self) -> list[Check]:
        """Remove and return the next pending checks, with at most one check for Evidently per group."""
        seen: set[str] = set()
        batch: list[Check] = []
        for check in self._pending:
            if check.ask and check.group in seen:
                break
            if check.ask:
                seen.add(check.group)
            batch.append(check)
        del self._pending[: len(batch)]
        return batch

    def _settle(self, check: Check, scores: Mapping[str, float] | None) -> None:
        group = self.monitor.groups.get(check.group)
        if group is None:
            return
        before = group.episode.since, group.episode.recurring
        was_on = group.episode.on
        begun = self.monitor.settle(check, scores)
        self.episodes.unsaved |= (group.episode.since, group.episode.recurring) != before
        label = self._metrics.label(check.group)
        episode, at = group.episode, check.window.end
        if begun:
            self._metrics.detected.labels(label).inc()
        if begun or (episode.on and at - self._logged_at.get(check.group, at) >= REMIND_AFTER_S):
            self._logged_at[check.group] = at
            columns = ", ".join(f"{c.name} {c.ratio:.1f}" for c in status.moved_columns(check))
            log.warning(
                "%s is in drift (%s); scores as multiples of their thresholds: %s",
                check.group,
                episode.severity,
                columns,
            )
        elif was_on and not episode.on:
            log.info("%s is no longer in drift", check.group)
        self._metrics.active.labels(label).set(episode.on)
        self._metrics.ratio.labels(label).set(check.ratio)
        self._metrics.rows.labels(label).set(len(check.window.rows))
        self._metrics.coverage.labels(label).set(check.window.coverage)

    # -- the status ----------------------------------------------------------------------------------

    def _publish(self) -> None:
        """Publish the status to the workers, and update the metrics of age and of forgotten groups."""
        self._published_at = time.monotonic()
        evidently = self.engine.available and not self.engine.error
        found: PublishedStatus = {
            **status.describe(self.monitor, self.error, self._check_seconds, self.rolling.describe()),
            "engine": "evidently" if evidently else "builtin",
            "engine_error": self.engine.error or None,
            "checking": bool(self._pending) or self._is_settling,
            "published_at": round(time.time(), 1),
            "window_s": self.config.window_s,
            "step_s": self.config.step_s,
        }
        self._document.publish(json.dumps(found, separators=(",", ":")).encode())
        self._shared_status.post("drift", status.overall_status(self.monitor, self.error))
        self._publish_ages()
        for name in self._labelled - self.monitor.groups.keys():
            self._metrics.forget(name)
        self._labelled = set(self.monitor.groups)
        for name in self._labelled:
            self._metrics.label(name)

    def _publish_ages(self) -> None:
        last, signature = self.monitor.last_check, self._file_signature
        self._metrics.check_age_s.set(max(0.0, time.time() - last) if last else -1)
        age_s = time.time() - signature[0] / 1e9 if signature and self.monitor.reference else -1
        self._metrics.reference_age_s.set(age_s)
        now = time.time()
        self._metrics.show_growing(
            {
                name: GrowingReference(days, max(0.0, now - newest))
                for name, (days, newest) in self.rolling.sizes().items()
                if name in self.monitor.groups
            }
        )
