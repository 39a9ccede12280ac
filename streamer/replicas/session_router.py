"""Routes a request about a session to the process that has the session, in this replica or in another one.

The id of a session begins with the name of its replica, if that has one, and the number of its worker.
Workers of one replica reach each other by HTTP over Unix sockets in the replica's private folder; replicas
reach each other on the port that they serve. `proxy` forwards the request, `replica_addresses` finds the
addresses.
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
from streamer.http.caller import forwarded_for, identity_of
from streamer.http.problem_details import Problem
from streamer.http.tickets import PREFIX, SHOWED_TICKET, TicketStore, TooManyTickets, is_ticket
from streamer.http.trace_context import trace_headers
from streamer.http.version_split import VERSION_HEADER, has_version, version_of
from streamer.replicas.proxy import CONNECT_S, forward, forwarded_headers, open_websocket, post

log = logging.getLogger("streamer.owners")

_SESSION_ID = re.compile(rf"(?:([0-9a-f]{{{NAME_LENGTH}}})-)?(\d{{1,2}})-[A-Za-z0-9_-]{{24}}")
#: Size of the largest message that a stream at another replica may send: many results of a thousand boxes.
MOST_RESULT_BYTES = 4 << 20
#: Longest time that a returning client waits for its old session before it gets a new one.
_TAKE_OVER_S = 1.5


class _Target(NamedTuple):
    """Describes how to reach another process, and whether it is in another replica."""

    client: aiohttp.ClientSession
    base: str
    in_other_replica: bool


class SessionRouter:
    """Creates session ids, and forwards requests according to them; calls ``count`` for each forwarding."""

    def __init__(
        self, number: int, workers: int, folder: Path, replicas: Replicas, count: Callable[[str], None]
    ) -> None:
        self._number = number
        self._workers = workers
        self._folder = folder
        self._replicas = replicas
        self._count = count
        #: HTTP clients by socket path; the client for other replicas has the key "".
        self._clients: dict[str, aiohttp.ClientSession] = {}
        #: Tickets issued here, for browsers and for forwarded requests.
        self.tickets = TicketStore(self.new_id)

    @property
    def replica(self) -> str:
        """Name of this replica; empty if REPLICA_ADDRESS is not set."""
        return self._replicas.name

    @property
    def own_socket(self) -> Path | None:
        """Unix socket on which this worker listens for the others; None if it is the only one."""
        return self._socket(self._number) if self._workers > 1 else None

    def _socket(self, number: int) -> Path:
        return self._folder / f"worker-{number}.sock"

    def new_id(self) -> str:
        """Return an id, which nobody can guess, for a new session of this worker."""
        name = f"{self.replica}-" if self.replica else ""
        return f"{name}{self._number}-{secrets.token_urlsafe(18)}"

    async def close(self) -> None:
        """Close the connections to other processes."""
        for client in self._clients.values():
            await client.close()

    async def forward(self, request: web.Request) -> web.StreamResponse | None:
        """Return the answer of the process that has the session; None if that is this process or unknown.

        Raises Problem: 410 if the replica is gone, 429 if no ticket is free, 503 while the worker restarts,
        504 if it hangs, and the status with which the process refuses a WebSocket.
        """
        target = await self._find(request.match_info["session"], hopped=HOP_HEADER in request.headers)
        if target is None:
            return None
        self._count("replica" if target.in_other_replica else "worker")
        try:
            return await forward(target.client, target.base, request, self._extra(request, target))
        except aiohttp.WSServerHandshakeError as error:
            raise Problem(
                error.status, "refused", "The owner of this session refused the WebSocket."
            ) from error
        except TimeoutError as error:
            raise Problem(
                504, "owner_silent", "The process that has this session does not answer."
            ) from error
        except aiohttp.ClientConnectorError as error:
            if target.in_other_replica:
                raise Problem(
                    410,
                    "replica_gone",
                    "The replica that had this session is gone, and the session with it; make a new one.",
                ) from error
            raise _restarting() from error
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
            raise _restarting() from error

    async def open_stream(
        self, name: str, request: web.Request, redeemed: Identity | None
    ) -> aiohttp.ClientWebSocketResponse | None:
        """Open a WebSocket at another replica, at the address and with the headers of the request.

        ``redeemed`` is the client if the ticket in its hello is used up. Returns None if the replica is
        unknown, does not answer or refuses the stream.
        """
        address = await self._replicas.find(name)
        if address is None:
            return None
        target = _Target(self._client(""), address.url, in_other_replica=True)
        url = f"{target.base}{request.rel_url.raw_path_qs}"
        try:
            headers = forwarded_headers(request, self._extra(request, target, redeemed))
            socket = await open_websocket(target.client, url, request, headers, MOST_RESULT_BYTES)
        except (aiohttp.ClientError, TimeoutError, OSError, Problem) as error:
            log.info("replica %s did not take a stream: %s", name, str(error)[:200] or type(error).__name__)
            return None
        self._count("replica")
        return socket

    async def post_elsewhere(self, name: str, request: web.Request, body: bytes) -> web.Response | None:
        """Send a POST to another replica, at the address and with the headers of the request.

        Returns its answer; None if the replica is unknown, does not answer, or refuses.
        """
        address = await self._replicas.find(name)
        if address is None:
            return None
        target = _Target(self._client(""), address.url, in_other_replica=True)
        try:
            answer = await post(target.client, target.base, request, self._extra(request, target), body)
        except (aiohttp.ClientError, TimeoutError, OSError, Problem) as error:
            log.info("replica %s did not answer: %s", name, str(error)[:200] or type(error).__name__)
            return None
        if answer.status >= 400:
            log.info("replica %s refused a session with status %d", name, answer.status)
            return None
        self._count("replica")
        return answer

    def _extra(
        self, request: web.Request, target: _Target, redeemed: Identity | None = None
    ) -> dict[str, str]:
        """Return the headers that a forwarded request gets. Raises Problem 429 if no ticket is free.

        ``redeemed`` is the client if it has shown a ticket after the request.
        """
        extra = {"X-Forwarded-For": forwarded_for(request)}
        if request.get(SHOWED_TICKET):
            redeemed = identity_of(request)
        if redeemed is not None:  # its ticket is used up; the other process gets a new one
            extra["Authorization"] = f"Bearer {self._another_ticket(redeemed)}"
        if target.in_other_replica:
            extra[HOP_HEADER] = self.replica
            if not has_version(request):
                # The other replica must not choose again: a client without an id would get another version.
                extra[VERSION_HEADER] = version_of(request)
        return extra

    async def take(
        self, version: str, session: str, client: Identity, token: str | None
    ) -> dict[str, Any] | None:
        """Take a WebSocket session over from the process that has it, and return its state.

        ``token`` is the key or ticket of the ``client``. Returns None if the session is here, unknown or
        another client's, or if the other process does not answer in time.
        """
        target = await self._find(session, hopped=False)
        if target is None:
            return None
        self._count("replica" if target.in_other_replica else "worker")
        if token is not None and is_ticket(token) and not client.anonymous:
            token = self._another_ticket(client)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if target.in_other_replica:
            headers[HOP_HEADER] = self.replica
        return await self._post(target, f"/{version}/stream/{session}", headers)

    def _another_ticket(self, client: Identity) -> str:
        """Return a new ticket for a client whose own ticket is used up. Raises Problem 429."""
        try:
            return self.tickets.issue(client)
        except TooManyTickets as error:
            raise Problem.too_many_requests(str(error), retry_after_s=15) from error

    async def redeem_at_issuer(self, ticket: str) -> dict[str, Any] | None:
        """Return what the process that issued a ticket says about it; None if no other process issued it."""
        target = await self._find(ticket.removeprefix(PREFIX), hopped=False)
        if target is None:
            return None
        headers = {HOP_HEADER: self.replica} if target.in_other_replica else {}
        return await self._post(target, f"/tickets/{ticket}", headers)

    async def _post(self, target: _Target, path: str, headers: dict[str, str]) -> dict[str, Any] | None:
        """Send a POST and return the JSON object in the answer; None if none arrives in time."""
        try:
            async with (
                asyncio.timeout(_TAKE_OVER_S),
                target.client.post(target.base + path, headers=trace_headers() | headers) as answer,
            ):
                if answer.status != 200:
                    return None
                state = await answer.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            log.info("another process did not answer: %s", str(error) or type(error).__name__)
            return None
        return state if isinstance(state, dict) else None

    async def _find(self, session: str, *, hopped: bool) -> _Target | None:
        """Return the process that has a session; None if that is this process or unknown.

        A request that another replica has forwarded (``hopped``) is not forwarded to a third one.
        """
        match = _SESSION_ID.fullmatch(session)
        if match is None:
            return None
        name, number = match.group(1) or "", int(match.group(2))
        if name != self.replica:
            address = await self._replicas.find(name) if name and not hopped else None
            return None if address is None else _Target(self._client(""), address.url, in_other_replica=True)
        if number == self._number or number >= self._workers or not is_private(self._folder):
            return None
        return _Target(self._client(str(self._socket(number))), "http://worker", in_other_replica=False)

    def _client(self, socket: str) -> aiohttp.ClientSession:
        client = self._clients.get(socket)
        if client is None:
            # Each request to a replica opens a new connection, because the replica could close a kept
            # connection at the moment when it is used.
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
    """Return whether only this user can create sockets in the replica's folder.

    Requests over these sockets contain keys. If a cleaner of temporary files removes the folder, another user
    can create one with the same name.
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
