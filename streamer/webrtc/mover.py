"""Asks the clients of WebRTC sessions to move to another replica, as the rebalancer decides.

Sessions of WHIP stay: publishers such as OBS or FFmpeg receive no message that asks them to come back.
"""

from __future__ import annotations

from collections.abc import Callable

from streamer.replicas.rebalance_policy import MovableStream
from streamer.webrtc.end_reason import EndReason
from streamer.webrtc.peers import Peers


class WebrtcMover:
    """Moves sessions. ``load_of`` returns the load of a stream by version and key."""

    name = "webrtc"

    def __init__(self, peers: Peers, load_of: Callable[[str, int], float]) -> None:
        self._peers = peers
        self._load_of = load_of

    def movable(self) -> list[MovableStream]:
        """Return the sessions that can be asked to move, by their ids."""
        return [
            MovableStream(
                session.id,
                self._load_of(session.version, session.handle.key),
                session.opened_at,
                session.moved_at,
            )
            for session in self._peers
            if session.transport == self.name and session.connected and session.has_listener
        ]

    def move(self, key: str, reconnect_ms: int) -> bool:
        """Ask a client to open a new session after that time; return False if this one has ended."""
        session = self._peers.get(key)
        if session is None:
            return False
        session.end(EndReason.MOVED, reconnect_ms=reconnect_ms)
        return True
