"""The state of a stream's connection, and the notifier that wakes tasks when a stream's state changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Phase(StrEnum):
    """Phases of a connection."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    #: Between two tries; ``State.retry_s`` says how long.
    WAITING = "waiting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class State:
    """One phase and its circumstances; texts hold no credentials."""

    phase: Phase
    #: The address, or what went wrong.
    detail: str = ""
    retry_s: float | None = None
    #: Whether the server knew the session of the connection before.
    resumed: bool = False


Watcher: TypeAlias = Callable[[State], None]


class Notifier:
    """A condition without a lock: the state belongs to one loop, so nothing changes between two awaits."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
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
