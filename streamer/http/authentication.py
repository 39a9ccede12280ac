"""Identifies clients by the key, ticket or token that they send; `guard` calls this module."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, NotRequired

from aiohttp import hdrs, web
from pydantic import Field
from typing_extensions import TypedDict

from streamer.access.access_settings import AccessSettings
from streamer.access.failed_keys import FailedKeys
from streamer.access.identity import ALL_SCOPES, TOKEN_NAME_PREFIX, Identity, Quotas, Scope
from streamer.access.key_ring import KeyRing
from streamer.http.caller import ClientAddresses
from streamer.http.tickets import Tickets, is_ticket

#: Size of the cache of identities of clients without a key.
_ANONYMOUS_KNOWN = 4096


class AccessState(TypedDict):
    """Whether clients need keys, and whether the file of keys could be read."""

    keys: Annotated[Literal["required", "none"], Field(description="Whether clients need an API key.")]
    keys_file: NotRequired[
        Annotated[
            Literal["ok", "failed"],
            Field(
                description="Present if a file of keys is configured; `failed` if its last version cannot be "
                "used, and the keys before it stay valid."
            ),
        ]
    ]


class Authenticator:
    """Identifies clients. If no keys are configured, every client may do everything within ``quotas``."""

    def __init__(
        self,
        ring: KeyRing,
        addresses: ClientAddresses,
        *,
        requires_keys: bool,
        quotas: Quotas,
        failed: FailedKeys | None = None,
        has_admin_keys: bool = False,
    ) -> None:
        """``has_admin_keys`` says whether there are keys of administrators in the settings."""
        self.addresses = addresses
        self._has_admin_keys = has_admin_keys
        self._failed = failed if failed is not None else FailedKeys()
        self._ring = ring
        self._requires_keys = requires_keys
        self._quotas = quotas
        #: Verifies JSON Web Tokens; None if they are not accepted.
        self.verify: Callable[[str], Awaitable[Identity | None]] | None = None
        #: None until the application has been composed.
        self._tickets: Tickets | None = None
        self._anonymous = lru_cache(maxsize=_ANONYMOUS_KNOWN)(self._make_anonymous)

    @property
    def allows_anonymous(self) -> bool:
        """Whether clients need no key."""
        return not self._requires_keys

    def expects_key(self, scope: Scope | None) -> bool:
        """Return whether the key that comes with a request for ``scope`` counts.

        Where clients need no key, one that they send nevertheless is ignored, except for the scope of
        administrators, who may have keys of their own.
        """
        return self._requires_keys or (scope is Scope.ADMIN and self._has_admin_keys)

    def anonymous(self, request: web.Request) -> Identity:
        """Return the identity of a client without a key.

        If no keys are required, it has all scopes, except that of administrators if these have keys.
        """
        return self._anonymous(self.addresses.name(request))

    def _make_anonymous(self, name: str) -> Identity:
        scopes = ALL_SCOPES if self.allows_anonymous else frozenset()
        if self._has_admin_keys:
            scopes -= {Scope.ADMIN}
        return Identity(name, scopes, self._quotas, anonymous=True)

    def accept_tickets(self, tickets: Tickets, app: web.Application) -> None:
        """Accept tickets in addition to keys, and add the routes that issue them."""
        self._tickets = tickets
        tickets.add_to(app)

    async def identify(self, token: str, address: str, *, tickets: bool = False) -> Identity | None:
        """Return the identity to which ``token``, a key or a ticket, belongs; None if it is unknown.

        A ticket can be used only once. ``address`` names the client that sent the token. Raises
        TooManyWrongKeys if this client has sent too many, possibly without checking this token.
        """
        self._failed.begin(address, token)
        identity = await self._look_up(token, tickets=tickets)
        self._failed.end(address, token, good=identity is not None, again=not is_ticket(token))
        return identity

    async def _look_up(self, token: str, *, tickets: bool) -> Identity | None:
        if is_ticket(token):
            if not tickets or self._tickets is None:
                return None
            holder = await self._tickets.redeem(token)
            # The key may have been revoked since the ticket was issued.
            return holder if holder is not None and self.is_still_valid(holder) else None
        identity = self._ring.find(token)
        if identity is None and self.verify is not None:
            identity = await self.verify(token)
        return identity

    def is_key(self, text: str) -> bool:
        """Return whether ``text`` is a key, to find keys where none should be, such as in a query."""
        return self._ring.find(text) is not None

    def is_still_valid(self, identity: Identity) -> bool:
        """Return whether the key or token of an open stream's client is still valid for streams.

        Keys and tokens expire, and keys can be replaced in the file or removed from it.
        """
        if identity.anonymous:
            return True
        if self.verify is not None and identity.name.startswith(TOKEN_NAME_PREFIX):
            return identity.is_current(time.time())
        return self._ring.is_still_valid(identity, Scope.STREAM)

    def describe(self) -> AccessState:
        """Return the state of the keys for `/health`, without names and paths."""
        found: AccessState = {"keys": "required" if self._requires_keys else "none"}
        if self._ring.has_file:
            found["keys_file"] = "failed" if self._ring.fault else "ok"
        return found

    async def lifetime(self, _app: web.Application) -> AsyncIterator[None]:
        """Watch the file of keys for changes while the application runs."""
        self._ring.start()
        yield
        await self._ring.close()


def make_authenticator(
    settings: AccessSettings, folder: Path, refused: Callable[[str], None] = lambda _: None
) -> Authenticator:
    """Return the authenticator that the settings configure; ``folder`` is the private folder of the replica.

    ``refused`` is called for each refused key, with the reason.
    """
    ring = KeyRing(settings.keys, settings.api_keys_file, folder, settings.admin_keys)
    authenticator = Authenticator(
        ring,
        ClientAddresses(settings.proxy_networks),
        requires_keys=settings.requires_keys,
        quotas=settings.anonymous_quotas,
        failed=FailedKeys(refused),
        has_admin_keys=bool(settings.admin_keys),
    )
    if settings.jwt_jwks:
        # The package is an optional extra, so it is imported only if it is used.
        from streamer.access.jwt_keys import JwtKeys, KeySet, fetch_from  # noqa: PLC0415 - see above

        keys = KeySet(fetch_from(settings.jwt_jwks), settings.token_algorithms)
        tokens = JwtKeys(keys, settings.jwt_issuer, settings.jwt_audience, settings.jwt_scope_claim)
        authenticator.verify = tokens.identify
    return authenticator


def bearer_token(request: web.Request) -> str | None:
    """Return the bearer token of the ``Authorization`` header, or None if there is none."""
    shown = request.headers.get(hdrs.AUTHORIZATION)
    if shown is None:
        return None
    scheme, _, token = shown.partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
