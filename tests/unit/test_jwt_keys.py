"""Tests which tokens are accepted.

The issuer must have made the token for this service, it must be valid now, and a published key must have
signed it with the algorithm of that key.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from streamer.access.identity import Scope
from streamer.access.jwt_keys import (
    ASK_EVERY_S,
    FRESH_S,
    STALE_S,
    BadKeySet,
    JwtKeys,
    KeySet,
    fetch_from,
    parse_key_set,
)

ISSUER, AUDIENCE = "https://issuer.example", "vision"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ALGORITHMS = ("RS256", "ES256")


def entry(algorithm: type[RSAAlgorithm | ECAlgorithm], key: Any, **fields: str) -> dict[str, Any]:
    return {**json.loads(algorithm.to_jwk(key.public_key())), **fields}


def key_set(*more: dict[str, Any]) -> bytes:
    keys = [
        entry(RSAAlgorithm, RSA_KEY, kid="r1", use="sig", alg="RS256"),
        entry(ECAlgorithm, EC_KEY, kid="e1"),
        *more,
    ]
    return json.dumps({"keys": keys}).encode()


class Issuer:
    """Stands for an issuer: publishes a key set, counts the fetches, and has a clock that the test sets."""

    def __init__(self) -> None:
        self.content: bytes | None = key_set()
        self.asked = 0
        self.now = 1000.0

    async def fetch(self) -> bytes:
        self.asked += 1
        if self.content is None:
            raise BadKeySet("is away")
        return self.content

    def keys(self) -> JwtKeys:
        return JwtKeys(KeySet(self.fetch, ALGORITHMS, lambda: self.now), ISSUER, AUDIENCE, "scope")


def claims(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "scope": "stream predict x"}
    made["exp"] = time.time() + 300
    return {name: value for name, value in (made | changes).items() if value is not None}


def signed(
    key: Any = RSA_KEY, algorithm: str = "RS256", kid: str | None = "r1", header: Any = None, **changes: Any
) -> str:
    named = ({} if kid is None else {"kid": kid}) | (header or {})
    return str(jwt.encode(claims(**changes), key, algorithm, headers=named))


def encoded(part: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def with_public_key_as_secret() -> str:
    """Sign with HMAC and the published key as secret; a verifier that trusts `alg` would accept this."""
    public = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    text = f"{encoded({'alg': 'HS256', 'typ': 'JWT', 'kid': 'r1'})}.{encoded(claims())}"
    digest = hmac.new(public, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


async def test_a_good_token_says_who_may_do_what() -> None:
    keys = Issuer().keys()
    for token in (signed(), signed(EC_KEY, "ES256", "e1"), signed(aud=["other", AUDIENCE])):
        identity = await keys.identify(token)
        assert identity is not None
        assert identity.scopes == {Scope.PREDICT, Scope.STREAM}
        assert (identity.name, identity.owner, identity.anonymous) == ("jwt:ann", "jwt:ann", False)
        assert identity.until is not None
        assert identity.until > time.time()
    listed = await keys.identify(signed(scope=["admin"]))
    assert listed is not None
    assert listed.scopes == {Scope.ADMIN}
    late = await keys.identify(signed(exp=time.time() - 20))
    assert late is not None, "clocks may differ by a minute"


# These are functions, because the times in a token must count from the run of the test.
@pytest.mark.parametrize(
    "make",
    [
        lambda: signed(exp=time.time() - 70),
        lambda: signed(nbf=time.time() + 250),
        lambda: signed(exp=None),
        lambda: signed(exp=10**400),
        lambda: signed(iss="https://issuer.example.evil"),
        lambda: signed(iss=None),
        lambda: signed(aud="visions"),
        lambda: signed(aud=None),
        lambda: signed(sub=None),
        lambda: signed(sub=""),
        lambda: signed(sub="x" * 129),
        lambda: signed(sub="a\nb"),
        lambda: signed(scope={"stream": True}),
        lambda: signed(OTHER_RSA),
        lambda: signed(kid=None),
        lambda: signed(kid="unknown"),
        lambda: signed(kid="e1"),
        lambda: signed(RSA_KEY, "RS512"),
        lambda: signed(RSA_KEY, "PS256"),
        lambda: signed(header={"crit": ["x"], "x": 1}),
        lambda: signed(header={"crit": ["b64"], "b64": True}),
        lambda: signed(OTHER_RSA, header={"jwk": entry(RSAAlgorithm, OTHER_RSA)}),
        lambda: signed(OTHER_RSA, header={"jku": "https://evil.example/keys"}),
        lambda: with_public_key_as_secret(),
        lambda: f"{encoded({'alg': 'none', 'typ': 'JWT', 'kid': 'r1'})}.{encoded(claims())}.",
        lambda: f"{encoded({'alg': 'none'})}.{encoded(claims())}.",
        lambda: signed()[:-2],
        lambda: signed() + "A",
        lambda: signed().replace(".", "..", 1),
        lambda: "a.b.c",
        lambda: "..",
        lambda: "",
        lambda: "x" * 5000,
        lambda: signed(extra="x" * 5000),
    ],
)
async def test_no_other_token_is_good(make: Callable[[], str]) -> None:
    assert await Issuer().keys().identify(make()) is None


async def test_keys_are_fetched_when_needed_and_not_more_often() -> None:
    issuer = Issuer()
    keys = issuer.keys()
    for _ in range(5):
        assert await keys.identify(signed())
    assert issuer.asked == 1
    issuer.content = key_set(entry(RSAAlgorithm, OTHER_RSA, kid="r2"))
    for _ in range(100):
        assert await keys.identify(signed(OTHER_RSA, kid="r2")) is None
    assert issuer.asked == 1, "an unknown key is not asked for at once again"
    issuer.now += ASK_EVERY_S
    assert await keys.identify(signed(OTHER_RSA, kid="r2"))
    assert issuer.asked == 2
    issuer.content = key_set()
    issuer.now += FRESH_S
    assert await keys.identify(signed(OTHER_RSA, kid="r2")) is None, "withdrawn"


async def test_keys_outlive_their_issuer_for_an_hour() -> None:
    issuer = Issuer()
    keys = issuer.keys()
    assert await keys.identify(signed())
    issuer.content = None
    issuer.now += STALE_S - 1
    assert await keys.identify(signed())
    issuer.now += 1
    assert await keys.identify(signed()) is None
    issuer.content = b"[]"
    issuer.now += ASK_EVERY_S
    assert await keys.identify(signed()) is None


def test_of_a_key_set_only_what_can_verify_is_taken() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - to be refused
    odd: list[Any] = [
        entry(RSAAlgorithm, OTHER_RSA, kid="enc", use="enc"),
        entry(RSAAlgorithm, OTHER_RSA, kid="ps", alg="PS256"),
        entry(RSAAlgorithm, OTHER_RSA),
        entry(RSAAlgorithm, weak, kid="weak"),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "oct", "alg": "HS256"},
        {"kty": "RSA", "n": "!", "e": "AQAB", "kid": "broken"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "broken2"},
        {"kid": "empty"},
        5,
    ]
    assert set(parse_key_set(key_set(*odd), ALGORITHMS)) == {"r1", "e1"}


@pytest.mark.parametrize("content", [b"", b"x", b"[]", b"{}", b'{"keys": 5}', b"[" * 60_000, b"\xff"])
def test_what_is_no_key_set_is_refused(content: bytes) -> None:
    with pytest.raises(BadKeySet):
        parse_key_set(content, ALGORITHMS)


def test_a_key_set_has_an_end() -> None:
    with pytest.raises(BadKeySet):
        parse_key_set(json.dumps({"keys": [{}] * 51}).encode(), ALGORITHMS)


async def test_a_file_may_hold_the_keys(tmp_path: Any) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(key_set())
    assert await fetch_from(str(file))() == key_set()
    file.write_bytes(b" " * ((64 << 10) + 1))
    for source in (file, tmp_path / "none"):
        with pytest.raises(BadKeySet):
            await fetch_from(str(source))()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/moved", "answers 302"),
        ("/long", "has more than"),
        ("/compressed", "not a JSON Web Key Set"),
        ("/cut", "cannot be fetched"),
        ("/none", "answers 404"),
    ],
)
async def test_only_a_short_answer_of_the_configured_address_is_taken(path: str, words: str) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        bodies = {"/good": key_set(), "/long": b" " * (64 << 10) + key_set()}
        if request.path == "/moved":
            raise web.HTTPFound("/good")
        if request.path == "/compressed":  # within the limit when compressed, and above it when inflated
            packed = gzip.compress(b" " * (1 << 20) + key_set())
            return web.Response(body=packed, headers={"Content-Encoding": "gzip"})
        if request.path == "/cut" and request.transport is not None:
            request.transport.abort()
        if request.path not in bodies:
            raise web.HTTPNotFound
        return web.Response(body=bodies[request.path])

    app = web.Application()
    app.router.add_get("/{name}", answer)
    async with TestServer(app) as server:
        assert parse_key_set(await fetch_from(str(server.make_url("/good")))(), ALGORITHMS)
        asked.clear()
        with pytest.raises(BadKeySet, match=words):
            parse_key_set(await fetch_from(str(server.make_url(path)))(), ALGORITHMS)
        assert set(asked) == {path}
