"""One reader of a session's messages over HTTP: what waits for it, and what gives way when it is slow."""

from __future__ import annotations

import asyncio
from typing import Any

from streamer.outbox import Outbox, OutboxFull

#: More than a slow moment of the network leaves waiting; from here on only the newest result is kept.
_SLOW_FROM = 8


class Listener:
    """The session puts messages in; the route that serves the reader takes them out."""

    def __init__(self) -> None:
        self._outbox = Outbox()
        self._filled = asyncio.Event()
        self._ended = False

    def put(self, message: dict[str, Any]) -> int:
        """Queue one message; returns how many results it replaced. A reader that takes none is ended."""
        if self._ended:
            return 0
        try:
            # A copy: results that are replaced are changed in place, and others hold the same one.
            replaced = self._outbox.put(dict(message), replace_results=len(self._outbox) >= _SLOW_FROM)
        except OutboxFull:
            self.end()
            return 0
        self._filled.set()
        return replaced

    def end(self) -> None:
        """Nothing follows; what waits is still taken."""
        self._ended = True
        self._filled.set()

    async def take(self) -> dict[str, Any] | None:
        """Return the next message; None at the end."""
        while True:
            message = self._outbox.take()
            if message is not None or self._ended:
                return message
            self._filled.clear()
            await self._filled.wait()
