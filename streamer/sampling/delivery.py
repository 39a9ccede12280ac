"""Delivers accepted samples, and files of drift rows, from the spool to the store.

It runs in a thread with an event loop of its own.

The image is stored first, its sidecar last; a sample leaves the spool when the store has both. A sample that
cannot be delivered stays in the spool, and the thread tries again, also after a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import threading
import time
from collections import Counter
from typing import Protocol

from streamer.core.backoff import Backoff
from streamer.sampling.errors import (
    ObjectRefused,
    SpoolBroken,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
)
from streamer.sampling.sidecar import sidecar_key
from streamer.sampling.spool import Spool, SpooledSample
from streamer.sampling.store import Store

log = logging.getLogger("streamer.observer.delivery")

#: Number of refusals after which a sample is moved to ``dead/``, if the store has accepted others meanwhile.
MAX_REFUSALS = 10
#: Failures of the same kind are logged at most once in this time.
LOG_EVERY_S = 600.0
CONTENT_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}

#: Longest pause after one failure, and after any number of failures in a row. It doubles with each failure.
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 300.0
#: Number of failures in a row that open the circuit breaker, and the shortest pause while it is open.
OPENS_AFTER = 5
OPEN_PAUSE_S = 30.0
#: Longest pause after the first failure that only a changed setting can resolve.
MISCONFIGURED_PAUSE_S = 60.0


class DeliveryMetrics(Protocol):
    """Counts deliveries and records whether they are paused."""

    def delivered(self, result: str, seconds: float) -> None:
        """Count one attempt to deliver a sample; ``result`` is ``stored``, ``failed`` or ``dead``."""

    def held_back(self, *, is_open: bool, blocked: str) -> None:
        """Set whether deliveries are paused, and which setting is wrong: ``blocked``, empty for none."""


class CircuitBreaker:
    """Counts failures in a row and computes the pause before the next attempt. Pure; the caller waits."""

    def __init__(self, rng: random.Random) -> None:
        self._backoff = Backoff(rng.uniform, first_s=FIRST_PAUSE_S, max_s=LAST_PAUSE_S, least_s=None)
        self._misconfigured = False

    @property
    def is_open(self) -> bool:
        """Whether attempts are paused."""
        return self._misconfigured or self._backoff.failures >= OPENS_AFTER

    def succeeded(self) -> None:
        """Reset after an object was stored."""
        self._backoff.reset()
        self._misconfigured = False

    def failed(self, *, misconfigured: bool) -> float:
        """Count a failure and return the pause in seconds before the next attempt.

        The pause is drawn at random between half and all of its upper limit.
        """
        self._misconfigured = misconfigured
        if misconfigured:
            return self._backoff.next_s(factor=MISCONFIGURED_PAUSE_S / FIRST_PAUSE_S)
        # The value is doubled, because the jitter may halve it.
        opens = self._backoff.failures + 1 >= OPENS_AFTER
        return self._backoff.next_s(floor_s=2 * OPEN_PAUSE_S if opens else 0.0)


class Delivery:
    """Delivers the samples of a spool to a store.

    Call ``start()``, then ``wake()`` after each accepted sample, and ``stop()`` at the end.
    """

    def __init__(self, spool: Spool, store: Store, metrics: DeliveryMetrics) -> None:
        self._spool = spool
        #: This object is used only on the thread's event loop.
        self._store = store
        self._metrics = metrics
        self._breaker = CircuitBreaker(random.Random())  # noqa: S311 - jitter, not a secret
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)
        #: Set by the thread as soon as its event loop runs.
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        #: Refusals by sample, and the value of ``_stored`` at the first refusal of each.
        self._refusals: Counter[str] = Counter()
        self._stored = 0
        self._stored_before: dict[str, int] = {}
        self._next_log_at: dict[str, float] = {}

    def start(self) -> None:
        """Start the thread, which begins with the samples that an earlier process left."""
        self._thread.start()
        self._ready.wait()

    def wake(self) -> None:
        """Notify the thread of a new sample in the spool."""
        loop, woken = self._loop, self._woken
        if loop is not None and woken is not None:
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                loop.call_soon_threadsafe(woken.set)

    def stop(self, drain_s: float) -> None:
        """Deliver samples for at most ``drain_s`` seconds, then end the thread.

        The other samples stay in the spool. This method blocks.
        """
        loop, task = self._loop, self._task
        if loop is None or task is None:
            return
        self._stopping = True
        self.wake()
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            loop.call_soon_threadsafe(lambda: loop.call_later(drain_s, task.cancel))
        self._thread.join(drain_s + 2.0)

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._woken = asyncio.get_running_loop(), asyncio.Event()
        self._task = asyncio.current_task()
        self._ready.set()
        try:
            while True:
                self._woken.clear()
                pause_s = await self._deliver_all()
                if pause_s:
                    # New samples do not end the pause, because the store has failed.
                    await asyncio.sleep(pause_s)
                elif self._stopping:
                    return
                else:
                    await self._woken.wait()
        finally:
            await self._store.close()

    async def _deliver_all(self) -> float:
        """Try to deliver all samples, and return the pause in seconds before the next attempt; 0 for none."""
        refused = False
        for name in self._spool.oldest():
            begun = time.monotonic()
            try:
                await deliver(self._spool.read(name), self._store)
            except ObjectRefused as error:
                refused = True
                self._count_refusal(name, error)
            except (StoreUnavailable, StoreMisconfigured, SpoolBroken) as error:
                return self._count_failure(error, time.monotonic() - begun)
            else:
                self._count_success(name, time.monotonic() - begun)
        if refused and len(self._spool):
            return self._breaker.failed(misconfigured=False)
        return 0.0

    def _count_success(self, name: str, seconds: float) -> None:
        self._spool.remove(name)
        self._stored += 1
        self._refusals.pop(name, None)
        self._breaker.succeeded()
        self._metrics.delivered("stored", seconds)
        self._metrics.held_back(is_open=False, blocked="")

    def _count_failure(self, error: StoreError | SpoolBroken, seconds: float) -> float:
        blocked = error.reason if isinstance(error, StoreMisconfigured) else ""
        pause_s = self._breaker.failed(misconfigured=bool(blocked))
        # Log before the metrics change: a person who sees the gauge then finds the reason in the log.
        self._log_failure(blocked or type(error).__name__, error)
        self._metrics.delivered("failed", seconds)
        self._metrics.held_back(is_open=self._breaker.is_open, blocked=blocked)
        return pause_s

    def _count_refusal(self, name: str, error: ObjectRefused) -> None:
        """Move a sample to ``dead/`` after too many refusals, if the store accepted others meanwhile."""
        self._metrics.delivered("failed", 0.0)
        self._stored_before.setdefault(name, self._stored)
        self._refusals[name] += 1
        self._log_failure("refused", error)
        if self._refusals[name] >= MAX_REFUSALS and self._stored > self._stored_before[name]:
            log.error("the store refused %s %d times; it is kept in dead/: %s", name, MAX_REFUSALS, error)
            with contextlib.suppress(SpoolBroken):
                self._spool.move_to_dead(name)
            self._metrics.delivered("dead", 0.0)

    def _log_failure(self, kind: str, error: Exception) -> None:
        now = time.monotonic()
        if now >= self._next_log_at.get(kind, 0.0):
            self._next_log_at[kind] = now + LOG_EVERY_S
            log.error("samples cannot be delivered, %d wait in the spool: %s", len(self._spool), error)


async def deliver(sample: SpooledSample, store: Store) -> None:
    """Store the image, then the sidecar; or a file of drift rows. Raises StoreError; repeating it is safe."""
    if "rows" in sample.sidecar:
        await store.put(sample.sidecar["rows"]["key"], sample.image, "application/gzip")
        return
    key = sample.sidecar["image"]["key"]
    await store.put(key, sample.image, CONTENT_TYPES[key.rpartition(".")[2]])
    body = json.dumps(sample.sidecar, ensure_ascii=False).encode()
    await store.put(sidecar_key(key, sample.sidecar.get("sample_id", "")), body, "application/json")
