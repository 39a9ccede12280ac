"""Brings a request about a session to the process that owns it, in this replica or in another one.

A session's id begins with the names of its replica and worker. Workers of one replica reach each other by
HTTP on Unix sockets in the replica's private folder, replicas by the port that they serve; `proxy`
carries the request, `replica_addresses` knows the addresses.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web

from streamer.access.identity import Identity
from streamer.config.replica_addresses import HOP_HEADER, NAME_LENGTH, Replicas
from streamer.http.caller import identity_of
from streamer.http.client_address import forwarded_for
from streamer.http.problem_details import Problem
from streamer.http.tickets import PREFIX, SHOWED_TICKET, TicketBox, TooManyTickets, is_ticket
from streamer.replicas.proxy import CONNECT_S, forward

log = logging.getLogger("streamer.owners")

_SESSION_ID = re.compile(rf"(?:([0-9a-f]{{{NAME_LENGTH}}})-)?(\d{{1,2}})-[A-Za-z0-9_-]{{24}}")
#: A returning client waits no longer than this for its old session; it gets a new one then.
_TAKE_S = 1.5


class _Place(NamedTuple):
    """Another process: how to reach it, and whether it is in another replica."""

    client: aiohttp.ClientSession
    base: str
    elsewhere: bool


class Owners:
    """Makes session ids, and knows whose a session is. ``count`` is told of every request passed on."""

    def __init__(
        self, number: int, workers: int, folder: Path, replicas: Replicas, count: Callable[[str], None]
    ) -> None:
        self._number = number
        self._workers = workers
        self._folder = folder
        self._replicas = replicas
        self._count = count
        #: Clients by socket path, and the one for other replicas under "".
        self._clients: dict[str, aiohttp.ClientSession] = {}
        #: Tickets that we have made, for browsers and for requests that we pass on.
        self.tickets = TicketBox(self.new_id)

    @property
    def replica(self) -> str:
        """This replica's name; empty where none is set."""
        return self._replicas.name

    @property
    def own_socket(self) -> Path | None:
        """Where this worker listens for the others; None when it is alone."""
        return self._socket(self._number) if self._workers > 1 else None

    def _socket(self, number: int) -> Path:
        return self._folder / f"worker-{number}.sock"

    def new_id(self) -> str:
        """Return the id of a new session of this worker; it cannot be guessed."""
        name = f"{self.replica}-" if self.replica else ""
        return f"{name}{self._number}-{secrets.token_urlsafe(18)}"

    async def close(self) -> None:
        """Close what was opened to others."""
        for client in self._clients.values():
            await client.close()

    async def forward(self, request: web.Request) -> web.StreamResponse | None:
        """Return the owner's answer; None when the session is ours, or nobody's.

        Raises Problem: 410 when its replica is gone, 503 while its worker restarts, 504 when it hangs.
        """
        place = await self._find(request.match_info["session"], hopped=HOP_HEADER in request.headers)
        if place is None:
            return None
        self._count("replica" if place.elsewhere else "worker")
        try:
            extra = {"X-Forwarded-For": forwarded_for(request)}
            if request.get(SHOWED_TICKET):  # used up: the owner gets another one
                extra["Authorization"] = f"Bearer {self._another_ticket(identity_of(request))}"
            if place.elsewhere:
                extra[HOP_HEADER] = self.replica
            return await forward(place.client, place.base, request, extra)
        except aiohttp.WSServerHandshakeError as error:
            raise Problem(
                error.status, "refused", "The owner of this session refused the WebSocket."
            ) from error
        except TimeoutError as error:
            raise Problem(
                504, "owner_silent", "The process that has this session does not answer."
            ) from error
        except aiohttp.ClientConnectorError as error:
            if place.elsewhere:
                raise Problem(
                    410,
                    "replica_gone",
                    "The replica that had this session is gone, and the session with it; make a new one.",
                ) from error
            raise _restarting() from error
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            raise _restarting() from error

    async def take(
        self, version: str, session: str, client: Identity, token: str | None
    ) -> dict[str, Any] | None:
        """Return the state of a WebSocket session that another process has, which forgets it.

        ``token`` is what the ``client`` has shown. None when the session is ours, nobody's or another
        client's, or its owner does not answer in time.
        """
        place = await self._find(session, hopped=False)
        if place is None:
            return None
        self._count("replica" if place.elsewhere else "worker")
        if token is not None and is_ticket(token) and not client.anonymous:
            token = self._another_ticket(client)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if place.elsewhere:
            headers[HOP_HEADER] = self.replica
        return await self._post(place, f"/{version}/stream/{session}", headers)

    def _another_ticket(self, client: Identity) -> str:
        """Return a ticket for a client whose own one is used up. Raises Problem 429."""
        try:
            return self.tickets.issue(client)
        except TooManyTickets as error:
            raise Problem.too_many_requests(str(error), retry_after_s=15) from error

    async def ask_issuer(self, ticket: str) -> dict[str, Any] | None:
        """Return what the process says of a ticket that has made it; None when that is nobody else's."""
        place = await self._find(ticket.removeprefix(PREFIX), hopped=False)
        if place is None:
            return None
        headers = {HOP_HEADER: self.replica} if place.elsewhere else {}
        return await self._post(place, f"/tickets/{ticket}", headers)

    async def _post(self, place: _Place, path: str, headers: dict[str, str]) -> dict[str, Any] | None:
        """Return the map that another process answers with; None when it does not answer so in time."""
        try:
            async with (
                asyncio.timeout(_TAKE_S),
                place.client.post(place.base + path, headers=headers) as answer,
            ):
                if answer.status != 200:
                    return None
                state = await answer.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            log.info("another process was asked in vain: %s", str(error) or type(error).__name__)
            return None
        return state if isinstance(state, dict) else None

    async def _find(self, session: str, *, hopped: bool) -> _Place | None:
        """Return where a session lives; None when that is here, or nowhere.

        What another replica has passed on (``hopped``) is passed to no third one.
        """
        match = _SESSION_ID.fullmatch(session)
        if match is None:
            return None
        name, number = match.group(1) or "", int(match.group(2))
        if name != self.replica:
            address = await self._replicas.find(name) if name and not hopped else None
            return None if address is None else _Place(self._client(""), address.url, elsewhere=True)
        if number == self._number or number >= self._workers or not is_private(self._folder):
            return None
        return _Place(self._client(str(self._socket(number))), "http://worker", elsewhere=False)

    def _client(self, socket: str) -> aiohttp.ClientSession:
        client = self._clients.get(socket)
        if client is None:
            # A connection of its own for each request to a replica: kept ones are closed just when used.
            connector: aiohttp.BaseConnector = (
                aiohttp.UnixConnector(socket, limit=0)
                if socket
                else aiohttp.TCPConnector(limit=0, force_close=True)
            )
            client = self._clients[socket] = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_S),
            )
        return client


def is_private(folder: Path) -> bool:
    """Whether nobody else can put sockets into the replica's folder, to which requests go with their keys.

    Where a cleaner of temporary files has removed the folder, another user may have made one of its name.
    """
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _restarting() -> Problem:
    return Problem.unavailable(
        "The process that has this session is being restarted; the session is lost.", retry_after_s=1
    )
