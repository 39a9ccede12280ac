"""Carries accepted samples from the spool into the store, in a thread and event loop of its own.

The picture first, its description last; a sample leaves the spool when the store has both. What cannot be
delivered stays and is tried again, now or after the next start.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

from streamer.observer.errors import SpoolBroken, StoreUnavailable
from streamer.observer.layout import sidecar_key
from streamer.observer.spool import Spool, Spooled

log = logging.getLogger("streamer.observer.delivery")

#: Pauses after failures double from the first to the last, times 0.5 to 1.
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 300.0
#: The same failure is logged once in this time.
LOG_EVERY_S = 600.0
CONTENT_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}


class Store(Protocol):
    """Where samples end up."""

    async def put(self, key: str, body: bytes, content_type: str) -> None:
        """Store one object, replacing what is there. Raises StoreUnavailable."""

    async def close(self) -> None:
        """Release what is held; no put is running."""


class DeliveryMetrics(Protocol):
    """Counts what becomes of deliveries."""

    def delivered(self, result: str, seconds: float) -> None:
        """Account one attempt to deliver a sample; ``result`` is ``stored`` or ``failed``."""


class Delivery:
    """Construct, ``start()``, ``wake()`` after each acceptance, ``stop()``."""

    def __init__(self, spool: Spool, store: Callable[[], Store], metrics: DeliveryMetrics) -> None:
        self._spool = spool
        self._make_store = store
        self._metrics = metrics
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)
        #: Set by the thread once its loop turns.
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: asyncio.Event | None = None
        #: When to stop although samples wait, monotonic; None while nobody has asked to stop.
        self._stop_at: float | None = None
        self._next_log_at = 0.0

    def start(self) -> None:
        """Begin with what an earlier process left."""
        self._thread.start()
        self._ready.wait()

    def wake(self) -> None:
        """There is a new sample."""
        if self._loop is not None and self._woken is not None:
            self._loop.call_soon_threadsafe(self._woken.set)

    def stop(self, drain_s: float) -> None:
        """Deliver what waits, for ``drain_s`` at most, then end; the rest stays in the spool. Blocks."""
        self._stop_at = time.monotonic() + drain_s
        self.wake()
        self._thread.join(drain_s + 1.0)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._woken = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        store = self._make_store()
        try:
            failures = 0
            while not self._must_stop():
                self._woken.clear()
                if await self._deliver_all(store):
                    failures = 0
                    if self._stop_at is not None:
                        return
                    await self._woken.wait()
                else:
                    failures += 1
                    await self._pause(failures)
        finally:
            await store.close()

    def _must_stop(self) -> bool:
        return self._stop_at is not None and time.monotonic() >= self._stop_at

    async def _pause(self, failures: int) -> None:
        pause_s = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 20))
        pause_s *= random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        until = time.monotonic() + pause_s
        # In steps, so that a stop is seen; new samples do not end it.
        while time.monotonic() < until and not self._must_stop():
            await asyncio.sleep(min(0.1, pause_s))

    async def _deliver_all(self, store: Store) -> bool:
        """Deliver what waits; False as soon as the store does not take it."""
        for name in self._spool.oldest():
            if self._must_stop():
                return False
            begun = time.monotonic()
            try:
                sample = self._spool.read(name)
                await deliver(sample, store)
            except (StoreUnavailable, SpoolBroken) as error:
                self._metrics.delivered("failed", time.monotonic() - begun)
                self._complain(error)
                return False
            self._spool.done(name)
            self._metrics.delivered("stored", time.monotonic() - begun)
        return True

    def _complain(self, error: Exception) -> None:
        now = time.monotonic()
        if now >= self._next_log_at:
            self._next_log_at = now + LOG_EVERY_S
            log.error("samples cannot be delivered, %d wait in the spool: %s", len(self._spool), error)


async def deliver(sample: Spooled, store: Store) -> None:
    """Put the picture, then its description. Raises StoreUnavailable; doing it again is safe."""
    key = sample.sidecar["image"]["key"]
    await store.put(key, sample.image, CONTENT_TYPES[key.rpartition(".")[2]])
    body = json.dumps(sample.sidecar, ensure_ascii=False).encode()
    await store.put(sidecar_key(key), body, "application/json")
