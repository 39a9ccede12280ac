"""Watches for drift in the observer process: rows from candidates, checks in time, Evidently where it counts.

The loop owns everything here; what takes long runs in threads and in a process of its own.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import math
import time
from collections.abc import Mapping

from inference.ipc.shared_status import Board
from streamer.config.settings import Settings
from streamer.drift import engine, status
from streamer.drift.columns import Row
from streamer.drift.config import Plan
from streamer.drift.engine import Answer, ask_evidently
from streamer.drift.episode import severity
from streamer.drift.errors import EngineFailed, ReferenceBroken
from streamer.drift.history import History
from streamer.drift.monitor import Check, Monitor
from streamer.drift.reference import Reference
from streamer.drift.reference_file import load
from streamer.drift.shared_document import StatusPage
from streamer.imaging.image_header import ImageError
from streamer.sampling.candidate import Candidate
from streamer.sampling.candidate_image import Decode, decode_here
from streamer.sampling.drift_metrics import DriftMetrics
from streamer.sampling.feature_extractor import RowMaker
from streamer.sampling.slug import UNNAMED

log = logging.getLogger("streamer.drift")

#: Rows may arrive so late; windows are judged when they have.
LATE_S = 30.0
PUBLISH_EVERY_S = 10.0
#: Failures of Evidently in a row after which it is left alone for a while.
GIVE_UP_AFTER, GIVE_UP_S = 3, 3600.0
#: An episode that lasts is told again.
TELL_AGAIN_S = 86_400.0
#: Checks that may wait for Evidently; beyond, ours decide.
MAX_PENDING = 512


def give_memory_back() -> None:
    """Return to the kernel what reading many rows took; the allocator would keep it."""
    ctypes.CDLL(None).malloc_trim(0)


class Watch:
    """``await open()``, then ``look()`` at candidates, ``tick()`` once a second, ``close()``."""

    def __init__(
        self,
        settings: Settings,
        metrics: DriftMetrics,
        page: StatusPage,
        board: Board,
        decode: Decode = decode_here,
    ) -> None:
        self.plan = Plan.of(settings)
        self.path = settings.reference_data_path
        self.monitor = Monitor(self.plan, lambda name: name == UNNAMED)
        self.history = History(settings.samples_dir / ".drift", settings.drift_history_bytes)
        #: Held while Evidently runs.
        self.engine_lock = asyncio.Lock()
        self._engine_timeout_s = settings.drift_engine_timeout_s
        self._engine_wanted = settings.drift_engine == "auto"
        self._engine_error = ""
        self._engine_failures = 0
        self._engine_again_at = 0.0
        self._metrics = metrics
        self._page = page
        self._board = board
        self._rows = RowMaker(self.plan.interval_s, decode)
        #: Why there is no reference though there is a file; empty: no such thing.
        self.error = ""
        #: Time and size of the file that was read last.
        self._seen: tuple[int, int] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._pending: list[Check] = []
        self._judging: asyncio.Task[None] | None = None
        self._check_seconds = 0.0
        self._published_at = -math.inf
        self._told: dict[str, float] = {}
        self._labelled: set[str] = set()

    # -- life ----------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Read the reference, and what the last process saw."""
        problem = await asyncio.to_thread(self.history.open)
        if problem:
            log.warning("rows are not kept, so no reference can be made from them: %s", problem)
        await self._read_reference()
        for row in await asyncio.to_thread(self._last_rows):
            self.monitor.restore(row)
        self._publish()

    async def close(self) -> None:
        """End what runs; rows are on disk already."""
        for task in (self._judging, self._reading):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self.history.close()

    def _last_rows(self) -> list[Row]:
        since = time.time() - self.plan.window_s
        return [row for group in self.history.groups() for row in self.history.read(group, since)]

    # -- rows ----------------------------------------------------------------------------------------

    def look(self, candidate: Candidate) -> None:
        """Make a row of the candidate, if it is time for one of its stream."""
        try:
            row = self._rows.make(candidate)
        except (ImageError, MemoryError):
            self._metrics.failures.labels("damaged").inc()
            return
        if row is not None:
            self._metrics.taken.inc()
            self.history.append(row)
            self._handle(self.monitor.add(row))

    def tick(self) -> None:
        """Once a second: judge also where no rows come, look for another file, publish."""
        self._handle(self.monitor.advance(time.time() - LATE_S) if self.monitor.next_check else [])
        if time.monotonic() - self._published_at < PUBLISH_EVERY_S:
            return
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_reference())
        self._publish()

    # -- samples -------------------------------------------------------------------------------------

    def wants_sample(self, candidate: Candidate) -> bool:
        """Whether the candidate is worth labelling because its group is in drift."""
        return self.monitor.wants_sample(candidate.origin.stream)

    def sample_taken(self, candidate: Candidate) -> None:
        """It was kept because of it."""
        self.monitor.sample_taken(candidate.origin.stream)

    # -- the reference -------------------------------------------------------------------------------

    def refer_to(self, reference: Reference | None, error: str = "") -> None:
        """Measure by another reference from now on."""
        self._pending.clear()
        self.error = error
        self.monitor.refer_to(reference)
        self._seen = self._signature()
        self._publish()

    async def _read_reference(self) -> None:
        """Read the file if it is another one than before."""
        signature = self._signature()
        if signature == self._seen:
            return
        self._seen = signature
        try:
            reference = await asyncio.to_thread(
                load, self.path, window_s=self.plan.window_s, alpha=self.plan.alpha
            )
        except ReferenceBroken as error:
            log.error("no drift is watched for: %s (REFERENCE_DATA_PATH)", error)  # noqa: TRY400 - says it all
            self.refer_to(None, str(error))
            return
        finally:
            give_memory_back()
        self.refer_to(reference)
        if reference is not None:
            log.info("the reference of drift is %s, of %s", self.path, reference.created or "unknown age")

    def _signature(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size

    # -- checks --------------------------------------------------------------------------------------

    def _handle(self, checks: list[Check]) -> None:
        """Settle checks in order; from the first on that Evidently is to see, they wait for it."""
        for check in checks:
            check.ask = check.ask and self.engine_available and len(self._pending) < MAX_PENDING
            if self._pending or check.ask or (self._judging is not None and not self._judging.done()):
                self._pending.append(check)
            else:
                self._settle(check, None)
        if self._pending and (self._judging is None or self._judging.done()):
            self._judging = asyncio.create_task(self._judge())
        elif checks:
            self._publish()

    async def _judge(self) -> None:
        while self._pending:
            begun = time.monotonic()
            batch = self._next_batch()
            asked = [check for check in batch if check.ask]
            reference = self.monitor.reference
            scores: Mapping[str, Mapping[str, float]] = {}
            if asked:
                try:
                    scores = (await self.ask(asked)).scores
                except EngineFailed as error:
                    log.warning("the builtin engine decides: %s", error)
            if self.monitor.reference is not reference:
                continue  # measured by one that is no more
            for check in batch:
                self._settle(check, scores.get(check.group) if check.ask else None)
            self._check_seconds = time.monotonic() - begun
            self._metrics.check_s.observe(self._check_seconds)
            self._publish()

    def _next_batch(self) -> list[Check]:
        """Return checks from the front, up to where a group would be asked about twice."""
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

    @property
    def engine_available(self) -> bool:
        """Whether Evidently is worth a try."""
        if not self._engine_wanted:
            return False
        if not engine.installed():
            if not self._engine_error:
                self._metrics.failures.labels("missing").inc()
            self._engine_error = "Evidently is not installed"
            return False
        return time.monotonic() >= self._engine_again_at

    async def ask(self, checks: list[Check], *, html: bool = False) -> Answer:
        """Let Evidently score checks, one run at a time. Raises EngineFailed, which is counted here."""
        reference = self.monitor.reference
        known = {check.group: reference.of(check.group) for check in checks} if reference is not None else {}
        models = {name: found.model for name, found in known.items() if found is not None}
        try:
            async with self.engine_lock:
                answer = await ask_evidently(checks, models, self._engine_timeout_s, html=html)
        except EngineFailed as error:
            self._metrics.failures.labels(error.reason).inc()
            self._engine_error = str(error)
            self._engine_failures += 1
            if self._engine_failures >= GIVE_UP_AFTER:
                self._engine_failures = 0
                self._engine_again_at = time.monotonic() + GIVE_UP_S
            raise
        self._engine_error, self._engine_failures = "", 0
        return answer

    def _settle(self, check: Check, scores: Mapping[str, float] | None) -> None:
        was_on = check.group in self.monitor.drifting
        entered = self.monitor.settle(check, scores)
        group = self.monitor.groups.get(check.group)
        if group is None:
            return
        label = self._metrics.label(check.group)
        episode, at = group.episode, check.window.end
        if entered:
            self._metrics.detected.labels(label).inc()
        if entered or (episode.on and at - self._told.get(check.group, at) >= TELL_AGAIN_S):
            self._told[check.group] = at
            columns = ", ".join(f"{c.name} {c.ratio:.1f}" for c in status.moved(check))
            word = severity(episode.worst)
            log.warning("%s is in drift (%s): %s times their thresholds", check.group, word, columns)
        elif was_on and not episode.on:
            log.info("%s is no longer in drift", check.group)
        self._metrics.active.labels(label).set(episode.on)
        self._metrics.ratio.labels(label).set(check.ratio)
        self._metrics.rows.labels(label).set(len(check.window.rows))
        self._metrics.coverage.labels(label).set(check.window.coverage)

    # -- the status ----------------------------------------------------------------------------------

    def _publish(self) -> None:
        self._published_at = time.monotonic()
        found = status.describe(self.monitor, self.error)
        found["engine"] = "evidently" if self.engine_available and not self._engine_error else "builtin"
        found["engine_error"] = self._engine_error or None
        found["checking"] = bool(self._pending) or (self._judging is not None and not self._judging.done())
        found["last_check"] |= {"seconds": round(self._check_seconds, 3)}
        found["published_at"] = round(time.time(), 1)
        found["window_s"], found["step_s"] = self.plan.window_s, self.plan.step_s
        self._page.post(json.dumps(found, separators=(",", ":")).encode())
        self._board.post("drift", status.word_of(self.monitor, self.error))
        self._publish_ages()
        for name in self._labelled - self.monitor.groups.keys():
            self._metrics.forget(name)
        self._labelled = set(self.monitor.groups)
        for name in self._labelled:
            self._metrics.label(name)

    def _publish_ages(self) -> None:
        last = self.monitor.last_check
        self._metrics.check_age_s.set(max(0.0, time.time() - last) if last else -1)
        age_s = time.time() - self._seen[0] / 1e9 if self._seen and self.monitor.reference else -1
        self._metrics.reference_age_s.set(age_s)
