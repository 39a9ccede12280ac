"""Who may use the service: API keys as bearer tokens, and the origins whose pages may open streams."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import urlsplit

from aiohttp import web


class Gate:
    """Checks keys and origins. Keeps only digests of the keys; without keys everybody may enter."""

    def __init__(self, keys: frozenset[str], origins: frozenset[str]) -> None:
        self._digests = tuple(hashlib.sha256(key.encode()).digest() for key in sorted(keys))
        self._origins = origins

    @property
    def open(self) -> bool:
        """Whether no key is asked for."""
        return not self._digests

    def allows_token(self, token: str | None) -> bool:
        """Whether ``token`` is one of the keys; compares in constant time."""
        if self.open:
            return True
        digest = hashlib.sha256((token or "").encode(errors="surrogateescape")).digest()
        # No short cut: the time must not tell which key matched.
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches)

    def allows_origin(self, request: web.Request) -> bool:
        """Whether a page of the request's ``Origin`` may open a stream; programs send none."""
        origin = request.headers.get("Origin")
        if origin is None or "*" in self._origins:
            return True
        origin = origin.lower().rstrip("/")
        try:
            own = urlsplit(origin).netloc == request.host.lower()
        except ValueError:  # no origin that a browser would send
            return False
        return own or origin in self._origins


def bearer_token(request: web.Request) -> str | None:
    """Return the token of the ``Authorization`` header, or None when there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
