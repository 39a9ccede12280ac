"""Finds the session that a client resumes, in this process or in another one. The hub owns it.

A session keeps its version. On a route without a version, where the split chooses one, sessions of every
version are found, and the connection then serves the version of its session.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Protocol

from streamer.access.identity import Identity
from streamer.protocol.client_messages import Hello
from streamer.protocol.wire import ProtocolError
from streamer.replicas.session_router import SessionRouter
from streamer.scheduling.dispatcher import Dispatcher
from streamer.scheduling.errors import SchedulingError
from streamer.streams.session import Session
from streamer.websocket.relay import Relay

log = logging.getLogger("streamer.websocket")


class Newcomer(Protocol):
    """Describes a connection whose client is identified and has no stream yet."""

    version: str
    #: Whether the path names the version.
    version_fixed: bool
    identity: Identity
    session: Session
    relay: Relay
    #: The key that came with the upgrade.
    token: str | None

    def change_version(self, version: str) -> None:
        """Serve another version. Raises SchedulingError."""


class Resumption:
    """Checks hellos and finds their sessions."""

    def __init__(self, dispatcher: Dispatcher, router: SessionRouter) -> None:
        self._dispatcher = dispatcher
        self._router = router

    def check(self, hello: Hello, newcomer: Newcomer) -> None:
        """Raise ProtocolError for a hello that is wrong for every version that its session may have."""
        try:
            newcomer.session.check(hello)
        except ProtocolError:
            others = [version for version in self.versions(hello, newcomer) if version != newcomer.version]
            if not any(self._accepts(version, hello) for version in others):
                raise

    def versions(self, hello: Hello, newcomer: Newcomer) -> Iterator[str]:
        """Yield the versions that the session of a hello may have, that of the connection first."""
        yield newcomer.version
        if hello.resume is not None and not newcomer.version_fixed:
            yield from (version for version in self._dispatcher.queues if version != newcomer.version)

    async def fetch(self, session_id: str, hello: Hello, newcomer: Newcomer) -> Session | None:
        """Return a session of another process, which then forgets it; None if no process has it for us.

        Raises Relayed if another replica has taken the stream.
        """
        token = hello.token or newcomer.token
        for version in self.versions(hello, newcomer):
            state = await self._router.take(version, session_id, newcomer.identity, token)
            if state is None:
                continue
            if isinstance(moved_to := state.get("moved_to"), str):
                await newcomer.relay.pass_to(moved_to)
            try:
                labels = self._dispatcher.model(version).labels
                session = Session.from_state(state, version, labels, self._router.new_id())
            except (KeyError, TypeError, ValueError, SchedulingError) as error:
                # It comes from another release or another model, so its client starts a new session.
                log.info("a session of another process cannot be continued: %r", error)
                return None
            session.owner = newcomer.identity.owner
            return session
        return None

    def _accepts(self, version: str, hello: Hello) -> bool:
        try:
            Session.of(version, self._dispatcher.model(version)).check(hello)
        except (ProtocolError, SchedulingError):
            return False
        return True
