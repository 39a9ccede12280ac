"""Handles Ctrl-C and SIGTERM as requests for an orderly end, for ``push`` and ``models pull``."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any, Self

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class Signals:
    """Ends the run in an orderly way at the first Ctrl-C or SIGTERM, and immediately at the second."""

    def __init__(self) -> None:
        self.exit_code = 0
        self._signalled = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._stop: Callable[[], None] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def on_first(self, stop: Callable[[], None]) -> None:
        """Call ``stop`` at the first signal, or now if it has already arrived."""
        self._stop = stop
        if self.exit_code:
            stop()

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.exit_code:
            raise KeyboardInterrupt
        self.exit_code = EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_TERMINATED
        self._loop.call_soon_threadsafe(self._signalled.set)
        if self._stop is not None:
            self._stop()

    async def wait(self) -> None:
        """Return at the first signal."""
        await self._signalled.wait()

    async def unless_signalled(self, work: Awaitable[object]) -> bool:
        """Await ``work``, but cancel it at a signal; return whether it was completed."""
        task, signalled = asyncio.ensure_future(work), asyncio.ensure_future(self._signalled.wait())
        await asyncio.wait({task, signalled}, return_when=asyncio.FIRST_COMPLETED)
        signalled.cancel()
        if task.done():
            task.result()
            return True
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return False
