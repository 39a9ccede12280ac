"""Who a client is by what it shows: one of the API keys, or nothing. `guard` asks for every request."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from aiohttp import web

from streamer.http.client_address import ClientAddresses
from streamer.http.identity import ALL_SCOPES, Identity


class Gate:
    """Knows the keys by their digests alone; without keys every client may do everything."""

    def __init__(self, keys: Iterable[str], addresses: ClientAddresses) -> None:
        self.addresses = addresses
        self._identities = {
            hashlib.sha256(key.encode()).digest(): Identity(f"api_keys:{number}", ALL_SCOPES)
            for number, key in enumerate(keys, 1)
        }

    @property
    def open(self) -> bool:
        """Whether no key is asked for."""
        return not self._identities

    def anonymous(self, request: web.Request) -> Identity:
        """Return who the client is that has shown nothing: it may do everything, or nothing at all."""
        scopes = ALL_SCOPES if self.open else frozenset()
        return Identity(self.addresses.name(request), scopes, anonymous=True)

    async def identify(self, token: str) -> Identity | None:
        """Return whose key ``token`` is; None when it is nobody's."""
        digest = hashlib.sha256(token.encode(errors="surrogateescape")).digest()
        # No short cut: the time must not tell which key matched.
        found = [
            identity for known, identity in self._identities.items() if hmac.compare_digest(digest, known)
        ]
        return found[0] if found else None


def bearer_token(request: web.Request) -> str | None:
    """Return the token of the ``Authorization`` header, or None when there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
