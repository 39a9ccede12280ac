"""Wakes every task that waits for the stream's state to change; one loop, no threads. Used by the stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Bell:
    """A condition without a lock: the state belongs to one loop, so nothing changes between two awaits."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """Something has changed: let all waiters look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Return at the next ring, or after ``timeout_s``."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            return
        finally:
            self._waiters.discard(waiter)

    async def until(self, true: Callable[[], bool]) -> None:
        """Return as soon as ``true()`` holds."""
        while not true():
            await self.wait()
