"""Tokens of an issuer: a running service fetches the issuer's keys from the configured URL only."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm
from websockets.exceptions import ConnectionClosed

from tests.helpers.model_factory import null_model
from tests.helpers.service import PATIENT, Service
from tests.helpers.waiting import wait_for
from tests.helpers.wire_client import WireClient

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def token(**changes: object) -> str:
    claims: dict[str, object] = {"iss": "https://issuer.example", "aud": "vision", "sub": "ann"}
    claims |= {"scope": "stream", "exp": time.time() + 300} | changes
    return str(jwt.encode(claims, KEY, "RS256", headers={"kid": "k"}))


@pytest.fixture
async def issuer() -> AsyncIterator[TestServer]:
    published = {"keys": [{**json.loads(RSAAlgorithm.to_jwk(KEY.public_key())), "kid": "k", "use": "sig"}]}

    async def keys(_: web.Request) -> web.Response:
        return web.json_response(published)

    async def elsewhere(_: web.Request) -> web.Response:
        raise web.HTTPFound("/keys")

    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(200):
            await response.write(b" " * 65_536)
        return response

    app = web.Application()
    app.router.add_get("/keys", keys)
    app.router.add_get("/elsewhere", elsewhere)
    app.router.add_get("/flood", flood)
    server = TestServer(app)
    await server.start_server()
    yield server
    await server.close()


@pytest.mark.parametrize(("path", "good"), [("/keys", True), ("/elsewhere", False), ("/flood", False)])
async def test_tokens_open_what_their_scopes_say(
    issuer: TestServer, tmp_path: Path, path: str, *, good: bool
) -> None:
    settings = {
        "MODEL_V1_PATH": str(null_model(tmp_path / "null.onnx")),
        **PATIENT,
        "JWT_JWKS": str(issuer.make_url(path)),
        "JWT_ISSUER": "https://issuer.example",
        "JWT_AUDIENCE": "vision",
    }
    service = Service(settings)
    try:
        await asyncio.to_thread(service.wait_ready)
        async with aiohttp.ClientSession() as http:

            async def ask(text: str, where: str = "/v1/webrtc") -> int:
                headers = {"Authorization": f"Bearer {text}"}
                async with http.get(service.http_url + where, headers=headers) as response:
                    return response.status

            assert await ask(token()) == (200 if good else 401)
            assert await ask("not.a.token") == 401
            async with http.get(f"{service.http_url}/v1/webrtc") as response:
                assert response.status == 401
            if not good:
                await asyncio.to_thread(wait_for, lambda: "JWT_JWKS" in service.log)
                return
            assert await ask(token(scope="predict")) == 403
            assert await ask(token(), "/drift/report") == 403
            assert await ask(token(aud="other")) == 401
        async with WireClient(f"{service.ws_url}/v1/stream") as client:
            session = (await client.hello(token=token()))["session"]
        async with WireClient(f"{service.ws_url}/v1/stream") as client:
            assert (await client.hello(token=token(sub="bob"), resume={"session": session}))[
                "resumed"
            ] is False
        async with WireClient(f"{service.ws_url}/v1/stream") as client:
            assert (await client.hello(token=token(), resume={"session": session}))["resumed"] is True
        async with WireClient(f"{service.ws_url}/v1/stream") as client:
            await client.hello(token=token(exp=time.time() - 54))
            with pytest.raises(ConnectionClosed) as closed:
                await client.receive("never", timeout_s=60)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401, "the token has expired meanwhile"
    finally:
        await asyncio.to_thread(service.stop)
