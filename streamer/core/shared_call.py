"""Runs an expensive call in a thread, once for all that wait for its result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class SharedCall(Generic[Result]):
    """Calls a function in a thread, one call at a time. All methods run on one event loop."""

    def __init__(self, function: Callable[[], Result]) -> None:
        self._function = function
        self._calling = asyncio.Lock()
        #: When the last call began, in monotonic seconds, and its result; None before the first.
        self._last: tuple[float, Result] | None = None

    async def result(self) -> Result:
        """Return what the function returns. Requests that arrive before a call begins share its result."""
        arrived = time.monotonic()
        async with self._calling:
            if self._last is None or self._last[0] < arrived:
                begun = time.monotonic()
                self._last = begun, await asyncio.to_thread(self._function)
            return self._last[1]
