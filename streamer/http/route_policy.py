"""Holds the table of all routes and of who may use them.

`guard` applies the table, and refuses requests to a route that is not in it. A test compares the table with
the router.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from aiohttp import hdrs, web

from streamer.access.identity import Scope


class Entry(Enum):
    """States what a client needs in order to use a route."""

    #: Nothing, and any `Host` is accepted, because load balancers send arbitrary ones with their probes.
    PROBE = auto()
    #: Nothing: the demo page and the documentation.
    OPEN = auto()
    #: Nothing, but the answer contains names of streams, names of classes and figures of traffic only for
    #: clients that may see them.
    REDUCED = auto()
    #: A key, sent as a bearer token.
    KEY = auto()
    #: A key with the scope `admin`. If clients need no key and administrators have none, a client on this
    #: machine needs none either; other clients are refused.
    ADMIN = auto()
    #: A key or a ticket, sent as a bearer token, as a subprotocol, or later in `hello.token`.
    SOCKET = auto()
    #: The address of a replica of this release (`REPLICA_PEERS`); no key.
    REPLICA = auto()
    #: Nothing for preflight requests; other OPTIONS requests need a key.
    OPTIONS = auto()


@dataclass(frozen=True, slots=True)
class Policy:
    """Holds what one route requires of a request."""

    entry: Entry
    #: None if no key is required.
    scope: Scope | None = None
    #: Whether a ticket is accepted in place of the key for which it was issued.
    tickets: bool = False

    @property
    def guards_origin(self) -> bool:
        """Whether pages of other origins are refused, because the route changes state or uses resources."""
        return self.scope is not None and self.entry is not Entry.REDUCED

    @property
    def is_audited(self) -> bool:
        """Whether requests are written to the audit log, because only administrators may send them."""
        return self.scope is Scope.ADMIN and self.entry in (Entry.KEY, Entry.ADMIN)


_PROBE = Policy(Entry.PROBE)
_OPEN = Policy(Entry.OPEN)
_REDUCED = Policy(Entry.REDUCED, Scope.ADMIN)
_PREDICT = Policy(Entry.KEY, Scope.PREDICT)
_STREAM = Policy(Entry.KEY, Scope.STREAM, tickets=True)
_SOCKET = Policy(Entry.SOCKET, Scope.STREAM, tickets=True)
#: A ticket cannot be used to get another ticket.
_TICKETS = Policy(Entry.KEY, Scope.STREAM)
_ADMIN = Policy(Entry.KEY, Scope.ADMIN)
#: Changes what is served, so a service without keys allows it only to programs on its own machine.
_CHANGE = Policy(Entry.ADMIN, Scope.ADMIN)
#: Shows frames of other clients, with the same rule.
_LOOK = Policy(Entry.ADMIN, Scope.ADMIN)
_REPLICA = Policy(Entry.REPLICA)
_OPTIONS = Policy(Entry.OPTIONS)

#: Policies by method and by path as the router writes it. `{kind}` is `webrtc` or `whip`.
ROUTES: dict[tuple[str, str], Policy] = {
    ("GET", "/health"): _PROBE,
    ("GET", "/livez"): _PROBE,
    ("GET", "/metrics"): _REDUCED,
    ("GET", "/versions"): _REDUCED,
    ("PUT", "/versions/split"): _CHANGE,
    ("PUT", "/versions/shadow"): _CHANGE,
    ("GET", "/versions/pictures/{picture}"): _LOOK,
    ("POST", "/versions/{version}/load"): _CHANGE,
    ("POST", "/versions/promote"): _CHANGE,
    ("POST", "/versions/rollback"): _CHANGE,
    ("POST", "/predict"): _PREDICT,
    ("POST", "/{version}/predict"): _PREDICT,
    ("GET", "/stream"): _SOCKET,
    ("GET", "/{version}/stream"): _SOCKET,
    ("POST", "/{version}/stream/{session}"): _STREAM,
    ("GET", "/{kind}"): _STREAM,
    ("POST", "/{kind}"): _STREAM,
    ("OPTIONS", "/{kind}"): _OPTIONS,
    ("GET", "/{version}/{kind}"): _STREAM,
    ("POST", "/{version}/{kind}"): _STREAM,
    ("OPTIONS", "/{version}/{kind}"): _OPTIONS,
    ("GET", "/{version}/{kind}/{session}"): _STREAM,
    ("PATCH", "/{version}/{kind}/{session}"): _STREAM,
    ("DELETE", "/{version}/{kind}/{session}"): _STREAM,
    ("OPTIONS", "/{version}/{kind}/{session}"): _OPTIONS,
    ("GET", "/{version}/{kind}/{session}/results"): _STREAM,
    ("OPTIONS", "/{version}/{kind}/{session}/results"): _OPTIONS,
    ("POST", "/tickets"): _TICKETS,
    ("POST", "/tickets/{session}"): _OPEN,
    ("GET", "/replicas/load"): _REPLICA,
    ("GET", "/drift/status"): _REDUCED,
    ("GET", "/drift/report"): _ADMIN,
    ("POST", "/reference/update"): _ADMIN,
}
#: Files of the demo page and of the documentation, which are read when the service starts.
_PAGES = {"/", "/favicon.ico", "/openapi.json", "/docs", "/docs-init.js", "/redoc", "/data/sample.mp4"}
_PAGE_FOLDERS = ("/static/", "/docs/")


def policy_of(method: str, path: str) -> Policy | None:
    """Return the policy of a route by its method and its path in the router; None if the route has none."""
    if method == hdrs.METH_HEAD:
        method = hdrs.METH_GET
    policy = ROUTES.get((method, path))
    if policy is None and method == hdrs.METH_GET and (path in _PAGES or path.startswith(_PAGE_FOLDERS)):
        return _OPEN
    return policy


def policy_of_request(request: web.Request) -> Policy | None:
    """Return the policy of the route that a request matches.

    Raises LookupError if the router found no route (404, 405), in which case aiohttp's own handler answers.
    """
    match = request.match_info
    if match.http_exception is not None or match.route.resource is None:
        raise LookupError(request.path)
    return policy_of(request.method, match.route.resource.canonical)
