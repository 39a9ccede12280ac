"""Chooses the model version of a request on a route without one, and names the version in every answer.

A client stands at a fixed place between 0 and 1, a pure hash of its id. The clients below the weight get v2.
So all workers, replicas and restarts agree without a store, and a higher weight moves clients only from v1
to v2.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass

from aiohttp import hdrs, web

from streamer.config.replica_addresses import HOP_HEADER
from streamer.http.path_prefix import prefix_of, scheme_of

#: Header with which a gateway assigns a request on a route without a version to a model version, and in
#: which every answer names the version; paths with a version ignore it in requests.
VERSION_HEADER = "X-Model-Version"
#: Header in which a client names itself, so that it keeps its version.
CLIENT_HEADER = "X-Client-Id"
#: Cookie that keeps the version of a client that does not name itself.
CLIENT_COOKIE = "rtva-client"
#: Version of requests on routes without one, unless the split or a gateway chooses another.
DEFAULT_VERSION = "v1"
#: Version that gets the clients below the weight.
SPLIT_VERSION = "v2"

_COOKIE_AGE_S = 365 * 24 * 3600
_ID_BYTES = 16
_ID = re.compile(r"[A-Za-z0-9_-]{22}")
#: Number of bits of a float's fraction: with more, the largest hash would be rounded to 1.
_BITS = 53
#: What may be a version; other values of a gateway's header are not repeated in answers.
_VERSION = re.compile(r"v[0-9]{1,9}")
_ROUTE = re.compile(r"(?:/(?P<version>v[0-9]+))?/(?:predict|stream|webrtc|whip)(?:/|$)")


def place_of(client: str, salt: str = "") -> float:
    """Return where a client stands, from 0 up to but not including 1; uniform over clients.

    ``salt`` has at most 64 bytes. Another salt gives all clients other places.
    """
    # Header values that are no UTF-8 contain surrogates.
    name = client.encode(errors="surrogateescape")
    digest = hashlib.blake2b(name, digest_size=8, key=salt.encode()).digest()
    return (int.from_bytes(digest) >> (64 - _BITS)) / (1 << _BITS)


@dataclass(frozen=True, slots=True)
class Choice:
    """The version of one request on a route without one."""

    version: str
    #: What chose it: the `header` of a gateway, `client_id`, `cookie`, a new id for a `new_client` that has
    #: neither, or nothing (`default`), because there is no split.
    by: str
    #: Id that the answer gives to a new client; empty for others.
    new_id: str = ""


class VersionSplit:
    """Chooses versions, counts the choices, and adds them to the answers.

    ``weight`` returns the share of clients that get v2, 0..1; ``serves`` whether a version is served here.
    ``count`` gets the version, `unknown` if it is not one of ``versions``, and what chose it.
    """

    def __init__(
        self,
        weight: Callable[[], float],
        serves: Callable[[str], bool],
        versions: Collection[str],
        count: Callable[[str, str], None],
        salt: str = "",
    ) -> None:
        self._weight = weight
        self._serves = serves
        self._versions = frozenset(versions)
        self._count = count
        self._salt = salt

    @property
    def has_both(self) -> bool:
        """Whether there are two versions to divide clients between."""
        return self._serves(SPLIT_VERSION)

    @property
    def weight(self) -> float:
        """Share of clients that get v2; 0 while v2 is not served."""
        return self._weight() if self.has_both else 0.0

    def choose(self, request: web.Request) -> Choice:
        """Return the version of a request on a route without one."""
        assigned = request.headers.get(VERSION_HEADER)
        if assigned is not None:
            return Choice(assigned, "header")
        weight = self.weight
        if weight <= 0:
            return Choice(DEFAULT_VERSION, "default")
        client, by = request.headers.get(CLIENT_HEADER, ""), "client_id"
        new_id = ""
        if not client:
            client, by = _sent_cookie(request), "cookie"
            if _ID.fullmatch(client) is None:
                client = new_id = secrets.token_urlsafe(_ID_BYTES)
                by = "new_client"
        version = SPLIT_VERSION if place_of(client, self._salt) < weight else DEFAULT_VERSION
        return Choice(version, by, new_id)

    async def name_version(self, request: web.Request, response: web.StreamResponse) -> None:
        """Name the version in an answer, errors included, give a new client its cookie, and count the choice.

        Answers to OPTIONS are about an address and belong to no version.
        """
        found = _ROUTE.match(request.path)
        if found is None or request.method == hdrs.METH_OPTIONS:
            return
        version, choice = found["version"], None
        if version is None:
            choice = _choice_of(request)
            version = choice.version
        if _VERSION.fullmatch(version) is not None:
            response.headers[VERSION_HEADER] = version
        if choice is None or HOP_HEADER in request.headers:
            return
        self._count(version if version in self._versions else "unknown", choice.by)
        if choice.new_id:
            response.headers.add(hdrs.SET_COOKIE, _cookie(request, choice.new_id))


SPLIT: web.AppKey[VersionSplit] = web.AppKey("version_split", VersionSplit)
_CHOICE = web.RequestKey("version_choice", Choice)


def version_of(request: web.Request) -> str:
    """Return the version that answers a request: that of its path, else the one chosen for it.

    It is the same in every call.
    """
    version = request.match_info.get("version")
    return _choice_of(request).version if version is None else version


def has_version(request: web.Request) -> bool:
    """Return whether the path of a request names a version, which is then not chosen."""
    return "version" in request.match_info


def _choice_of(request: web.Request) -> Choice:
    choice = request.get(_CHOICE)
    if choice is None:
        split = request.app.get(SPLIT)
        choice = request[_CHOICE] = (
            Choice(request.headers.get(VERSION_HEADER, DEFAULT_VERSION), "default")
            if split is None
            else split.choose(request)
        )
    return choice


def _cookie(request: web.Request, value: str) -> str:
    """Return the value of `Set-Cookie`; clients send the cookie below the path prefix of the service."""
    secure = "; Secure" if scheme_of(request) == "https" else ""
    path = prefix_of(request) or "/"
    return f"{CLIENT_COOKIE}={value}; Path={path}; Max-Age={_COOKIE_AGE_S}; HttpOnly; SameSite=Lax{secure}"


def _sent_cookie(request: web.Request) -> str:
    """Return the client id in the cookie of a request; empty if there is none.

    `request.cookies` would parse all cookies of the client with regular expressions.
    """
    for header in request.headers.getall(hdrs.COOKIE, ()):
        for cookie in header.split(";"):
            name, _, value = cookie.strip().partition("=")
            if name == CLIENT_COOKIE:
                return value
    return ""
