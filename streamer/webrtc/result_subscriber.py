"""One reader of a session's messages over HTTP: what waits for it, and what gives way when it is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from streamer.core.byte_budget import Holding
from streamer.protocol.server_messages import ServerMessage
from streamer.websocket.outbox import Encoded, Outbox, OutboxFull

#: More than a slow moment of the network leaves waiting; from here on only the newest result is kept.
_SLOW_FROM = 8


class Listener:
    """The session puts messages in; the route that serves the reader takes them out."""

    def __init__(self, encode: Callable[[ServerMessage], Encoded], hold: Callable[[], Holding]) -> None:
        self._outbox = Outbox(encode, hold)
        self._filled = asyncio.Event()
        self._ended = False

    def put(self, message: ServerMessage) -> int:
        """Queue one message; returns how many results it replaced. A reader that takes none is ended."""
        if self._ended:
            return 0
        try:
            replaced = self._outbox.put(message, replace_results=len(self._outbox) >= _SLOW_FROM)
        except OutboxFull:
            self.end()
            return 0
        self._filled.set()
        return replaced

    def end(self) -> None:
        """Nothing follows; what waits is still taken."""
        self._ended = True
        self._filled.set()

    def drop(self) -> None:
        """Nothing is taken any more: drop what waits."""
        self.end()
        self._outbox.clear()

    async def take(self) -> Encoded | None:
        """Return the next message as it is sent; None at the end."""
        while True:
            encoded = self._outbox.take()
            if encoded is not None or self._ended:
                return encoded
            self._filled.clear()
            await self._filled.wait()
