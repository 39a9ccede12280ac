"""Gives handlers the identity of the client, which the guard stores in the request."""

from __future__ import annotations

from aiohttp import web

from streamer.access.identity import Identity, Scope
from streamer.http.problem_details import Problem

IDENTITY = web.RequestKey("identity", Identity)


def identity_of(request: web.Request) -> Identity:
    """Return the identity of the client; the guard sets it for every request that it lets through."""
    return request[IDENTITY]


def require(identity: Identity, scope: Scope) -> None:
    """Raise Problem 401 for a client without a key, 403 if its key does not grant ``scope``."""
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
