"""Admits clients of WebSockets: before the upgrade if possible, else when their hello has come."""

from __future__ import annotations

import time
from typing import Protocol

from streamer.access.identity import Identity, Scope
from streamer.http.authentication import Authenticator
from streamer.http.tickets import is_ticket
from streamer.protocol.client_messages import Hello
from streamer.protocol.close_codes import CloseCode, CloseConnection
from streamer.scheduling.clients import Client
from streamer.scheduling.dispatcher import Dispatcher
from streamer.scheduling.errors import Saturated, SchedulingError
from streamer.streams.session import Session
from streamer.websocket.handshake import identify
from streamer.websocket.relay import Relay


class Newcomer(Protocol):
    """Describes a connection whose hello has come."""

    version: str
    identity: Identity
    client: Client | None
    session: Session
    relay: Relay


class Entrance:
    """Identifies clients, checks their quotas and the room of this replica, and counts their connections."""

    def __init__(self, dispatcher: Dispatcher, authenticator: Authenticator) -> None:
        self._dispatcher = dispatcher
        self._authenticator = authenticator

    def before_upgrade(self, version: str, identity: Identity, relay: Relay) -> Client | None:
        """Admit a client, and return it. Raises SchedulingError.

        None: its hello decides, because it names the key, or the replica to which its session belongs.
        """
        if not identity.may(Scope.STREAM):
            return None
        try:
            return self._admit(version, identity)
        except Saturated:
            relay.refused_here = True
            if not relay.may_help:
                raise
            return None

    async def at_hello(self, newcomer: Newcomer, hello: Hello) -> Client:
        """Identify and admit a client, unless it was admitted before the upgrade, and return it.

        Raises CloseConnection, or Relayed if another replica has taken the stream.
        """
        relay = newcomer.relay
        if not newcomer.identity.may(Scope.STREAM):
            newcomer.identity = await identify(self._authenticator, hello.token, newcomer.identity.name)
            newcomer.session.owner = newcomer.identity.owner
            if hello.token is not None and is_ticket(hello.token):
                relay.redeemed = newcomer.identity
        await relay.offer(hello)
        if newcomer.client is None:
            try:
                newcomer.client = self._admit(newcomer.version, newcomer.identity)
            except SchedulingError as refusal:
                if isinstance(refusal, Saturated) and not relay.refused_here:
                    relay.refused_here = True
                    await relay.offer(hello)
                code = CloseCode.OVERLOADED if isinstance(refusal, Saturated) else CloseCode.LIMITS
                raise CloseConnection(code, str(refusal)) from refusal
        return newcomer.client

    def _admit(self, version: str, identity: Identity) -> Client:
        """Count one more connection of a client and return it. Raises SchedulingError."""
        client = self._dispatcher.clients.of(identity, time.monotonic())
        self._dispatcher.admit(version, client)
        self._dispatcher.admission.open_stream(client)
        return client

    def left(self, client: Client | None) -> None:
        """Stop counting a connection; None: it was not admitted."""
        if client is not None:
            self._dispatcher.admission.close_stream(client)
