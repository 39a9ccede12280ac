"""How a handler learns who called: the guard leaves the client's identity in the request."""

from __future__ import annotations

from aiohttp import web

from streamer.access.identity import Identity, Scope
from streamer.http.problem_details import Problem

IDENTITY = web.RequestKey("identity", Identity)


def identity_of(request: web.Request) -> Identity:
    """Return who called; set for every request that has passed the guard."""
    return request[IDENTITY]


def require(identity: Identity, scope: Scope) -> None:
    """Raise Problem 401 for a client without a key, 403 where its key is not for this."""
    if identity.may(scope):
        return
    if identity.anonymous:
        raise Problem.unauthorized("This server wants one of its API keys as a bearer token.")
    granted = ", ".join(sorted(identity.scopes)) or "nothing"
    raise Problem(
        403,
        "missing_scope",
        f"This key is for {granted}; this address needs the scope {scope.value}.",
        needed=scope.value,
    )
