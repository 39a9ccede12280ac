"""Carries accepted samples from the spool into the store, in a thread and event loop of its own.

The picture first, its description last; a sample leaves the spool when the store has both. What cannot be
delivered stays and is tried again, now or after the next start.
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

from streamer.sampling.breaker import Breaker
from streamer.sampling.errors import (
    ObjectRefused,
    SpoolBroken,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
)
from streamer.sampling.layout import sidecar_key
from streamer.sampling.spool import Spool, Spooled

log = logging.getLogger("streamer.observer.delivery")

#: A sample that the store has refused so often, while it took others, is set aside.
REFUSALS = 10
#: The same kind of failure is logged once in this time.
LOG_EVERY_S = 600.0
CONTENT_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}


class Store(Protocol):
    """Where samples end up."""

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store one object, replacing what is there. Raises StoreError."""

    async def close(self) -> None:
        """Release what is held; no put is running."""


class DeliveryMetrics(Protocol):
    """Counts what becomes of deliveries."""

    def delivered(self, result: str, seconds: float) -> None:
        """Account one attempt to deliver a sample; ``result`` is ``stored``, ``failed`` or ``dead``."""

    def held_back(self, *, is_open: bool, blocked: str) -> None:
        """Publish whether attempts are held back, and which setting is wrong; empty: none."""


class Delivery:
    """Construct, ``start()``, ``wake()`` after each acceptance, ``stop()``."""

    def __init__(self, spool: Spool, store: Store, metrics: DeliveryMetrics) -> None:
        self._spool = spool
        #: Used on the thread's loop alone.
        self._store = store
        self._metrics = metrics
        self._breaker = Breaker(random.Random())  # noqa: S311 - jitter, not a secret
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)
        #: Set by the thread once its loop turns.
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        #: Refusals by sample, and how many samples were stored since the first one of each.
        self._refusals: Counter[str] = Counter()
        self._stored = 0
        self._stored_before: dict[str, int] = {}
        self._next_log_at: dict[str, float] = {}

    def start(self) -> None:
        """Begin with what an earlier process left."""
        self._thread.start()
        self._ready.wait()

    def wake(self) -> None:
        """There is a new sample."""
        loop, woken = self._loop, self._woken
        if loop is not None and woken is not None:
            with contextlib.suppress(RuntimeError):  # its loop has ended
                loop.call_soon_threadsafe(woken.set)

    def stop(self, drain_s: float) -> None:
        """Deliver what waits, for ``drain_s`` at most, then end; the rest stays in the spool. Blocks."""
        loop, task = self._loop, self._task
        if loop is None or task is None:
            return
        self._stopping = True
        self.wake()
        with contextlib.suppress(RuntimeError):  # it has ended
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
                    # New samples do not end it: the store is what is missing.
                    await asyncio.sleep(pause_s)
                elif self._stopping:
                    return
                else:
                    await self._woken.wait()
        finally:
            await self._store.close()

    async def _deliver_all(self) -> float:
        """Deliver what waits; returns the pause to make before the next try, 0 when nothing is left."""
        refused = False
        for name in self._spool.oldest():
            begun = time.monotonic()
            try:
                await deliver(self._spool.read(name), self._store)
            except ObjectRefused as error:
                refused = True
                self._refused(name, error)
            except (StoreUnavailable, StoreMisconfigured, SpoolBroken) as error:
                return self._failed(error, time.monotonic() - begun)
            else:
                self._stored_one(name, time.monotonic() - begun)
        if refused and len(self._spool):
            return self._breaker.failed(misconfigured=False)
        return 0.0

    def _stored_one(self, name: str, seconds: float) -> None:
        self._spool.done(name)
        self._stored += 1
        self._refusals.pop(name, None)
        self._breaker.succeeded()
        self._metrics.delivered("stored", seconds)
        self._metrics.held_back(is_open=False, blocked="")

    def _failed(self, error: StoreError | SpoolBroken, seconds: float) -> float:
        blocked = error.reason if isinstance(error, StoreMisconfigured) else ""
        pause_s = self._breaker.failed(misconfigured=bool(blocked))
        # The word first: who sees the gauge looks for it in the log.
        self._complain(blocked or type(error).__name__, error)
        self._metrics.delivered("failed", seconds)
        self._metrics.held_back(is_open=self._breaker.is_open, blocked=blocked)
        return pause_s

    def _refused(self, name: str, error: ObjectRefused) -> None:
        """Set one sample aside that is refused again and again while the store takes others."""
        self._metrics.delivered("failed", 0.0)
        self._stored_before.setdefault(name, self._stored)
        self._refusals[name] += 1
        self._complain("refused", error)
        if self._refusals[name] >= REFUSALS and self._stored > self._stored_before[name]:
            log.error("the store refused %s %d times; it is kept in dead/: %s", name, REFUSALS, error)
            with contextlib.suppress(SpoolBroken):
                self._spool.bury(name)
            self._metrics.delivered("dead", 0.0)

    def _complain(self, kind: str, error: Exception) -> None:
        now = time.monotonic()
        if now >= self._next_log_at.get(kind, 0.0):
            self._next_log_at[kind] = now + LOG_EVERY_S
            log.error("samples cannot be delivered, %d wait in the spool: %s", len(self._spool), error)


async def deliver(sample: Spooled, store: Store) -> None:
    """Put the picture, then its description. Raises StoreError; doing it again is safe."""
    key = sample.sidecar["image"]["key"]
    await store.put(key, sample.image, CONTENT_TYPES[key.rpartition(".")[2]])
    body = json.dumps(sample.sidecar, ensure_ascii=False).encode()
    await store.put(sidecar_key(key), body, "application/json")
