"""The state of a stream's connection, and the notifier that wakes tasks when a stream's state changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Phase(StrEnum):
    """Phase of a stream's connection."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    #: Between two attempts; ``State.retry_s`` is the wait.
    WAITING = "waiting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class State:
    """Phase and details of a stream's connection, without credentials."""

    phase: Phase
    #: The address, or the reason of a failure.
    detail: str = ""
    retry_s: float | None = None
    #: Whether the server resumed the session of the previous connection.
    resumed: bool = False


Watcher: TypeAlias = Callable[[State], None]


class Notifier:
    """A condition without a lock, for tasks of one event loop: state cannot change between two awaits."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def notify(self) -> None:
        """Wake all waiters, because the state has changed."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Return at the next notification, or after ``timeout_s``."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            return
        finally:
            self._waiters.discard(waiter)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return as soon as ``condition()`` returns True."""
        while not condition():
            await self.wait()
