"""Asks the clients of WebSockets to move to another replica, as the rebalancer decides."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

from streamer.protocol.close_codes import CloseCode
from streamer.replicas.rebalance_policy import MovableStream
from streamer.websocket.connection import BYE_GRACE_S, Connection

REASON = "another replica has more room"
#: `bye.ending` of a stream that moves, as over WebRTC (`webrtc.end_reason`).
MOVED = "moved"
#: Interval at which the outcomes of frames in flight are checked.
_CHECK_S = 0.02


class WebSocketMover:
    """Moves connections. ``load_of`` returns the load of a stream by version and key.

    ``background`` keeps moves in progress from garbage collection; its owner cancels them.
    """

    name = "websocket"

    def __init__(
        self,
        connections: Collection[Connection],
        load_of: Callable[[str, int], float],
        background: set[asyncio.Task[None]],
    ) -> None:
        self._connections = connections
        self._load_of = load_of
        self._background = background
        #: Ids of the sessions that were asked to move and are not closed yet.
        self._leaving: set[str] = set()

    def movable(self) -> list[MovableStream]:
        """Return the connections that can be asked to move, by the ids of their sessions."""
        # Sessions know Unix times, because these are also valid in other replicas.
        unix_offset_s = time.time() - time.monotonic()
        return [
            MovableStream(
                connection.session.id,
                sum(self._load_of(connection.version, each.key) for each in connection.streams.values()),
                connection.opened_at,
                connection.session.moved_at - unix_offset_s if connection.session.moved_at else None,
            )
            for connection in self._connections
            if connection.streams and connection.session.id not in self._leaving
        ]

    def move(self, key: str, reconnect_ms: int) -> bool:
        """Ask a client to reconnect after that time; return False if its connection has ended."""
        for connection in self._connections:
            if connection.session.id == key and connection.streams:
                connection.session.moved_at = time.time()
                self._leaving.add(key)
                task = asyncio.create_task(self._part(connection, reconnect_ms), name="move-stream")
                self._background.add(task)
                task.add_done_callback(self._background.discard)
                return True
        return False

    async def _part(self, connection: Connection, reconnect_ms: int) -> None:
        """Say bye, wait for the outcomes of frames in flight, and close."""
        try:
            connection.send_bye(REASON, reconnect_ms, MOVED)
            deadline = time.monotonic() + BYE_GRACE_S
            while connection.in_flight and time.monotonic() < deadline:
                await asyncio.sleep(_CHECK_S)
            connection.close_soon(CloseCode.RESTART, REASON)
        finally:
            self._leaving.discard(connection.session.id)
