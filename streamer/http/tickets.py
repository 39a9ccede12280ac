"""Issues and redeems tickets. A browser sends a ticket in place of a key where it cannot set a header.

A ticket opens one stream, once. Like the id of a session, it names the process that issued it, and only that
process stores it. A used ticket is therefore invalid for all processes at once, and the processes need no
shared secret.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field
from typing_extensions import TypedDict

from streamer.access.identity import Identity, Quotas, Scope
from streamer.http.caller import identity_of
from streamer.http.problem_details import Problem

PREFIX = "tkt_"
#: Prefix of a ticket in `Sec-WebSocket-Protocol`, the only header of a WebSocket that a page can set.
SUBPROTOCOL_PREFIX = "ticket."
VALID_S = 60.0
MAX_TICKETS = 10_000
MAX_TICKETS_OF_ONE = 100
#: Set on a request that carried a ticket. That ticket is used up, so a forwarded request needs a new one.
SHOWED_TICKET = web.RequestKey("showed_ticket", bool)


class TicketDocument(TypedDict):
    """A ticket, which opens one stream or session."""

    ticket: Annotated[str, Field(description="The ticket. It is valid once.")]
    expires_s: Annotated[float, Field(description="For how many seconds it is valid.")]


class TooManyTickets(Exception):
    """Too many tickets are unused; the text is meant for the client."""


class TicketStore:
    """Keeps the tickets that this process issued.

    ``make_id`` returns ids that name this process and that nobody can guess.
    """

    def __init__(self, make_id: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._make_id = make_id
        self._clock = clock
        #: Identity and time of expiry by ticket, the oldest ticket first.
        self._unused: OrderedDict[str, tuple[Identity, float]] = OrderedDict()
        self._by_name: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._unused)

    def issue(self, identity: Identity) -> str:
        """Return a new ticket for streams. Raises TooManyTickets."""
        now = self._clock()
        self._expire(now)
        if self._by_name[identity.name] >= MAX_TICKETS_OF_ONE:
            raise TooManyTickets(f"{MAX_TICKETS_OF_ONE} tickets of this client wait to be used.")
        if len(self._unused) >= MAX_TICKETS:
            raise TooManyTickets(f"{MAX_TICKETS} tickets wait to be used here.")
        ticket = f"{PREFIX}{self._make_id()}"
        scopes = identity.scopes & {Scope.STREAM}
        self._unused[ticket] = dataclasses.replace(identity, scopes=scopes), now + VALID_S
        self._by_name[identity.name] += 1
        return ticket

    def redeem(self, ticket: str) -> Identity | None:
        """Use a ticket up, and return its identity; None if it is unknown, used or expired."""
        kept = self._forget(ticket)
        return kept[0] if kept is not None and self._clock() < kept[1] else None

    def _forget(self, ticket: str) -> tuple[Identity, float] | None:
        kept = self._unused.pop(ticket, None)
        if kept is not None:
            self._by_name[kept[0].name] -= 1
            if not self._by_name[kept[0].name]:
                del self._by_name[kept[0].name]
        return kept

    def _expire(self, now: float) -> None:
        while self._unused:
            ticket, (_, until) = next(iter(self._unused.items()))
            if now < until:
                return
            self._forget(ticket)


class Tickets:
    """Issues tickets of this process, and redeems those of all processes.

    ``redeem_at_issuer`` uses a ticket up in the process that issued it. It returns the identity as plain JSON
    types, or None if the ticket is not valid.
    """

    def __init__(
        self, store: TicketStore, redeem_at_issuer: Callable[[str], Awaitable[Mapping[str, Any] | None]]
    ) -> None:
        self.store = store
        self._redeem_at_issuer = redeem_at_issuer

    async def redeem(self, ticket: str) -> Identity | None:
        """Use a ticket of any process up, and return its identity; None if it is not valid."""
        identity = self.store.redeem(ticket)
        if identity is not None:
            return identity
        answer = await self._redeem_at_issuer(ticket)
        try:
            return None if answer is None else _from_json(answer)
        except (KeyError, TypeError, ValueError):  # the issuing process may run another release
            return None

    def add_to(self, app: web.Application) -> None:
        """Add the routes to ``app``."""
        app.router.add_post("/tickets", self._issue)
        app.router.add_post("/tickets/{session}", self._redeem)

    async def _issue(self, request: web.Request) -> web.Response:
        """Answer ``POST /tickets`` with a ticket for the key of the request."""
        try:
            ticket = self.store.issue(identity_of(request))
        except TooManyTickets as error:
            raise Problem.too_many_requests(str(error), retry_after_s=int(VALID_S / 4)) from error
        answer: TicketDocument = {"ticket": ticket, "expires_s": VALID_S}
        return web.json_response(answer, status=201, headers={"Cache-Control": "no-store"})

    async def _redeem(self, request: web.Request) -> web.Response:
        """Answer ``POST /tickets/{ticket}``, with which another process uses a ticket up.

        Anyone who knows a ticket could use it anyway; the answer reveals only the name of its key.
        """
        # Another replica cannot choose which worker of this replica answers, so this worker may have to ask
        # the one that has the ticket.
        identity = await self.redeem(request.match_info["session"])
        if identity is None:
            raise Problem.not_found("There is no such ticket here; it may have been used, or is too old.")
        return web.json_response(_to_json(identity), headers={"Cache-Control": "no-store"})


def is_ticket(token: str) -> bool:
    """Whether a token has the form of a ticket."""
    return token.startswith(PREFIX)


def offered_ticket(request: web.Request) -> str | None:
    """Return the ticket among the subprotocols that a WebSocket client offers; None if there is none."""
    for header in request.headers.getall("Sec-WebSocket-Protocol", []):
        for name in header.split(","):
            if name.strip().startswith(SUBPROTOCOL_PREFIX):
                return name.strip().removeprefix(SUBPROTOCOL_PREFIX)
    return None


def _to_json(identity: Identity) -> dict[str, Any]:
    return {
        "name": identity.name,
        "scopes": sorted(identity.scopes),
        "quotas": dataclasses.asdict(identity.quotas),
        "anonymous": identity.anonymous,
        "until": identity.until,
        "key": identity.key,
    }


def _from_json(answer: Mapping[str, Any]) -> Identity:
    """Parse an identity. Raises KeyError, TypeError or ValueError if the answer has another form."""
    return Identity(
        str(answer["name"]),
        frozenset(Scope(scope) for scope in answer["scopes"]),
        Quotas(**answer["quotas"]),
        anonymous=bool(answer["anonymous"]),
        until=None if answer["until"] is None else float(answer["until"]),
        key=str(answer.get("key", "")),  # replicas of an earlier release omit it
    )
