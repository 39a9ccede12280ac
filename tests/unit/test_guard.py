"""The guard finds API keys in the query of a URL with bounded work, and knows replicas by their address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from streamer.access.access_settings import AccessSettings
from streamer.http.authentication import Authenticator, make_authenticator
from streamer.http.guard import Guard
from streamer.http.origins import OriginPolicy
from streamer.http.problem_details import problem_middleware

KEY = "dummy-key-of-the-tests"


@pytest.fixture
def authenticator(tmp_path: Path) -> Authenticator:
    return make_authenticator(AccessSettings(api_keys=KEY), tmp_path)


async def ask(authenticator: Authenticator, query: str) -> tuple[int, Any]:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({})

    app = web.Application(middlewares=[problem_middleware])
    Guard(authenticator, OriginPolicy()).add_to(app)
    app.router.add_get("/drift/status", answer)
    async with TestClient(TestServer(app)) as client, client.get(f"/drift/status?{query}") as response:
        return response.status, await response.json()


@pytest.mark.parametrize("query", [f"x={KEY}", f"a=1&b={KEY}", "token=x", "Api_Key=", "a=1&TICKET=tkt_x"])
async def test_a_key_in_the_address_is_refused_and_not_repeated(
    authenticator: Authenticator, query: str
) -> None:
    status, body = await ask(authenticator, query)
    assert (status, body["code"]) == (400, "key_in_query")
    assert KEY not in str(body)


async def test_an_address_of_many_parameters_costs_little(
    authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any client may send such a URL, and comparing a value with the keys takes time."""
    compared: list[str] = []

    def is_key(value: str) -> bool:
        compared.append(value)
        return False

    monkeypatch.setattr(authenticator, "is_key", is_key)
    assert (await ask(authenticator, "&".join(["a"] * 2000)))[0] == 200
    assert compared == [""]
    compared.clear()
    assert (await ask(authenticator, "&".join(f"a={number}" for number in range(700))))[0] == 200
    assert len(compared) == 64


@pytest.mark.parametrize("found", [True, False, None])
async def test_the_load_of_a_replica_is_told_only_to_addresses_of_replicas(
    authenticator: Authenticator, found: bool | None
) -> None:
    asked: list[str] = []

    async def is_replica(address: str) -> bool:
        asked.append(address)
        return bool(found)

    async def answer(_: web.Request) -> web.Response:
        return web.json_response({})

    app = web.Application(middlewares=[problem_middleware])
    Guard(authenticator, OriginPolicy(), None if found is None else is_replica).add_to(app)
    app.router.add_get("/replicas/load", answer)
    # An administrator's key and a forwarded address make no difference.
    headers = {"Authorization": f"Bearer {KEY}", "X-Forwarded-For": "10.0.0.2", "X-Replica-Hop": "abc"}
    async with (
        TestClient(TestServer(app)) as client,
        client.get("/replicas/load", headers=headers) as response,
    ):
        assert response.status == (200 if found else 403)
    assert asked == ([] if found is None else ["127.0.0.1"])
