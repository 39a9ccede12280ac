"""Verifies JSON Web Tokens of one issuer with the keys that it publishes.

The settings determine the source of the keys, the issuer, the audience, and the algorithms, all of which use
public keys. Before the signature of a token is verified, only its header is used, to find the key.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import jwt

from streamer.access.identity import TOKEN_NAME_PREFIX, Identity, Scope

log = logging.getLogger("streamer.http.jwt_keys")

#: Longer tokens are refused without being parsed.
MAX_TOKEN_CHARS = 4096
MAX_SUBJECT_CHARS = 128
#: Allowed difference between clocks.
LEEWAY_S = 60.0
#: Seconds after which the key set is fetched again, and shortest time between two attempts to fetch it.
FRESH_S = 300.0
ASK_EVERY_S = 30.0
#: How long keys stay valid while their issuer cannot be reached.
STALE_S = 3600.0
FETCH_S = 5.0
MAX_SET_BYTES = 64 << 10
MAX_KEYS = 50
LEAST_RSA_BITS = 2048

_FETCH_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}

Fetch = Callable[[], Awaitable[bytes]]


class BadKeySet(Exception):
    """Raised when the key set of the issuer is invalid or cannot be fetched."""


def parse_key_set(content: bytes, algorithms: tuple[str, ...]) -> dict[str, jwt.PyJWK]:
    """Return the keys for ``algorithms`` by key id. Raises BadKeySet."""
    try:
        entries = json.loads(content)["keys"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadKeySet("is not a JSON Web Key Set") from error
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise BadKeySet(f"has no list `keys` of at most {MAX_KEYS}")
    found: dict[str, jwt.PyJWK] = {}
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        kid, algorithm = entry.get("kid"), _algorithm_of(entry)
        if not isinstance(kid, str) or not kid or algorithm not in algorithms:
            continue
        try:
            key = jwt.PyJWK(entry, algorithm)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
            log.warning("a key of the issuer cannot be used: %s", type(error).__name__)
            continue
        if getattr(key.key, "key_size", LEAST_RSA_BITS) < LEAST_RSA_BITS and entry.get("kty") == "RSA":
            continue
        found[kid] = key
    return found


def _algorithm_of(entry: Mapping[str, Any]) -> str:
    """Return the algorithm of a key: the one that it names, or else the usual one of its type."""
    named = entry.get("alg")
    if isinstance(named, str):
        return named
    usual = {"RSA": "RS256", "P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
    kind = entry.get("kty")
    return usual.get(str(kind if kind == "RSA" else entry.get("crv")), "")


class KeySet:
    """Fetches the issuer's keys when they are needed, at most once in `ASK_EVERY_S`."""

    def __init__(
        self, fetch: Fetch, algorithms: tuple[str, ...], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._algorithms = algorithms
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = -STALE_S
        self._asked_at = -ASK_EVERY_S
        self._lock = asyncio.Lock()

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """Return the key with that id; None if it is unknown or the keys are older than `STALE_S`."""
        if kid not in self._keys or self._clock() - self._fetched_at >= FRESH_S:
            async with self._lock:
                now = self._clock()
                stale = now - self._fetched_at >= FRESH_S
                if (stale or kid not in self._keys) and now - self._asked_at >= ASK_EVERY_S:
                    self._asked_at = now
                    await self._refresh(now)
        return self._keys.get(kid) if self._clock() - self._fetched_at < STALE_S else None

    async def _refresh(self, now: float) -> None:
        try:
            self._keys = parse_key_set(await self._fetch(), self._algorithms)
            self._fetched_at = now
        except BadKeySet as error:
            log.error("JWT_JWKS %s; tokens are verified by the keys from before", error)  # noqa: TRY400


class JwtKeys:
    """Identifies clients by tokens whose ``issuer`` and ``audience`` match."""

    def __init__(self, keys: KeySet, issuer: str, audience: str, scope_claim: str) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._scope_claim = scope_claim

    async def identify(self, token: str) -> Identity | None:
        """Return the identity of the token's subject; None if the token is not valid."""
        if len(token) > MAX_TOKEN_CHARS or token.count(".") != 2:
            return None
        try:
            header = jwt.get_unverified_header(token)
            kid, algorithm = header.get("kid"), header.get("alg")
            # Extensions marked as critical are not supported, and the key must be named by its id.
            if not isinstance(kid, str) or "crit" in header:
                return None
            key = await self._keys.find(kid)
            if key is None or algorithm != key.algorithm_name:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            return self._identity(claims)
        # ArithmeticError: a time that is too large for a number of seconds.
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
            log.debug("a token was refused: %s", type(error).__name__)
            return None

    def _identity(self, claims: Mapping[str, Any]) -> Identity | None:
        subject, scopes = claims["sub"], claims.get(self._scope_claim, "")
        if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARS:
            return None
        if not subject.isprintable():
            return None
        named = scopes.split() if isinstance(scopes, str) else scopes
        if not isinstance(named, list):
            return None
        known = {scope.value: scope for scope in Scope}
        granted = frozenset(known[name] for name in named if isinstance(name, str) and name in known)
        return Identity(f"{TOKEN_NAME_PREFIX}{subject}", granted, until=float(claims["exp"]) + LEEWAY_S)


def fetch_from(source: str) -> Fetch:
    """Return a function that fetches a key set from an address or reads it from a file."""
    if source.startswith(("https://", "http://")):
        return lambda: _fetch_address(source)
    return lambda: asyncio.to_thread(_read_file, Path(source))


async def _fetch_address(address: str) -> bytes:
    """Fetch a key set. Raises BadKeySet.

    Redirects are not followed, so that only the configured address is used. A compressed answer is not
    decompressed, so that the limit applies to the bytes as they arrive.
    """
    timeout = aiohttp.ClientTimeout(total=FETCH_S)
    try:
        async with (
            aiohttp.ClientSession(
                timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
            ) as client,
            client.get(address, allow_redirects=False, headers=_FETCH_HEADERS) as answer,
        ):
            if answer.status != 200:
                raise BadKeySet(f"answers {answer.status}")
            content = await answer.content.read(MAX_SET_BYTES + 1)
            while len(content) <= MAX_SET_BYTES and (more := await answer.content.read(MAX_SET_BYTES)):
                content += more
    except (aiohttp.ClientError, TimeoutError) as error:
        raise BadKeySet(f"cannot be fetched: {type(error).__name__}") from error
    if len(content) > MAX_SET_BYTES:
        raise BadKeySet(f"has more than {MAX_SET_BYTES} bytes")
    return content


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SET_BYTES + 1)
    except OSError as error:
        raise BadKeySet(f"cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_SET_BYTES:
        raise BadKeySet(f"has more than {MAX_SET_BYTES} bytes")
    return content
