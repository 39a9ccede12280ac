"""Provides an event loop whose time jumps to the next timer, so that waiting takes no real time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from streamer.core import clock

_Answer = TypeVar("_Answer")

#: Virtual time at the start, in seconds. Some code treats the time 0 as "never".
BEGIN_S = 1000.0


class Deadlock(RuntimeError):
    """Raised when the simulation waits for something that no timer will bring about."""


class _JumpingSelector(selectors.BaseSelector):
    """Advances the virtual time instead of waiting. Nothing that a simulation does uses a socket."""

    def __init__(self) -> None:
        self.now = BEGIN_S
        self._registered: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Note a file, which will never be ready: asyncio registers the one that wakes it from threads."""
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._registered[number] = selectors.SelectorKey(fileobj, number, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Forget a file."""
        return self._registered.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Advance the time by ``timeout`` seconds."""
        if timeout is None:
            raise Deadlock("nothing is scheduled, but the simulation has not ended")
        self.now += max(0.0, timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Return the registered files."""
        return self._registered


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs callbacks, tasks and timers in virtual time, which begins at `BEGIN_S`."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._jumping.now


def run_virtually(main: Coroutine[Any, Any, _Answer]) -> _Answer:
    """Run a coroutine in virtual time until it ends, and return its result.

    Meanwhile the scheduler's clock (`streamer.core.clock`) shows the virtual time. An error in any callback
    ends the run and is raised, because the simulation would be wrong without what the callback should do.
    """
    loop = VirtualLoop()
    errors: list[BaseException] = []

    def note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        errors.append(context.get("exception") or RuntimeError(str(context.get("message"))))
        running.cancel()

    try:
        with clock.replaced(loop.time):
            loop.set_exception_handler(note)
            running = loop.create_task(main)
            try:
                return loop.run_until_complete(running)
            except asyncio.CancelledError:
                raise errors[0] from None
    finally:
        loop.close()
