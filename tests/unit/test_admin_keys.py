"""Keys of administrators: they alone have the scope `admin` as soon as there are any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from streamer.access.access_settings import AccessNotConfigured, AccessSettings, check_access
from streamer.access.identity import ALL_SCOPES, Scope
from streamer.access.key_ring import KeyRing
from streamer.http.authentication import make_authenticator
from streamer.http.caller import identity_of
from streamer.http.guard import Guard
from streamer.http.origins import OriginPolicy
from streamer.http.problem_details import problem_middleware

CLIENT, ADMIN = "dummy-key-of-a-client", "dummy-key-of-an-administrator"


def test_keys_of_administrators_take_the_scope_from_other_keys(tmp_path: Path) -> None:
    without = KeyRing((CLIENT,), None, tmp_path).find(CLIENT)
    assert without is not None
    assert without.scopes == ALL_SCOPES
    ring = KeyRing((CLIENT,), None, tmp_path, (ADMIN,))
    client, admin = ring.find(CLIENT), ring.find(ADMIN)
    assert client is not None
    assert admin is not None
    assert client.scopes == {Scope.PREDICT, Scope.STREAM}
    assert admin.name == "admin_api_keys:1"
    assert admin.scopes == {Scope.ADMIN}


def test_a_key_in_both_settings_has_the_rights_of_both(tmp_path: Path) -> None:
    both = KeyRing((CLIENT,), None, tmp_path, (CLIENT,)).find(CLIENT)
    assert both is not None
    assert both.scopes == ALL_SCOPES


def test_a_setting_without_a_key_in_it_is_an_error() -> None:
    with pytest.raises(AccessNotConfigured, match="ADMIN_API_KEYS"):
        check_access(AccessSettings(admin_api_keys=" , "))


def test_keys_of_administrators_do_not_open_the_service_to_the_network() -> None:
    with pytest.raises(AccessNotConfigured, match="ALLOW_ANONYMOUS"):
        check_access(AccessSettings(host="192.0.2.1", admin_api_keys=ADMIN))


async def _ask(settings: AccessSettings, folder: Path, method: str, path: str, key: str) -> tuple[int, Any]:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(sorted(identity_of(request).scopes))

    app = web.Application(middlewares=[problem_middleware])
    Guard(make_authenticator(settings, folder), OriginPolicy()).add_to(app)
    app.router.add_post("/reference/update", answer)
    app.router.add_get("/versions", answer)
    app.router.add_post("/{version}/predict", answer)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with (
        TestClient(TestServer(app)) as client,
        client.request(method, path, headers=headers) as response,
    ):
        return response.status, await response.json()


@pytest.mark.parametrize(
    ("api_keys", "key", "status"),
    [
        ("", "", 401),
        ("", ADMIN, 200),
        ("", "wrong", 401),
        (CLIENT, "", 401),
        (CLIENT, CLIENT, 403),
        (CLIENT, ADMIN, 200),
    ],
)
async def test_only_they_open_the_routes_of_administrators(
    tmp_path: Path, api_keys: str, key: str, status: int
) -> None:
    settings = AccessSettings(api_keys=api_keys, admin_api_keys=ADMIN)
    assert (await _ask(settings, tmp_path, "POST", "/reference/update", key))[0] == status


async def test_other_routes_stay_as_they_were(tmp_path: Path) -> None:
    """Without API_KEYS clients need no key, and a wrong one is ignored; their answers are reduced."""
    settings = AccessSettings(admin_api_keys=ADMIN)
    assert await _ask(settings, tmp_path, "POST", "/v1/predict", "wrong") == (200, ["predict", "stream"])
    assert await _ask(settings, tmp_path, "GET", "/versions", "") == (200, ["predict", "stream"])
    assert await _ask(settings, tmp_path, "GET", "/versions", "wrong") == (200, ["predict", "stream"])
    assert await _ask(settings, tmp_path, "GET", "/versions", ADMIN) == (200, ["admin"])


async def test_a_key_of_administrators_alone_sends_no_images(tmp_path: Path) -> None:
    settings = AccessSettings(api_keys=CLIENT, admin_api_keys=ADMIN)
    status, body = await _ask(settings, tmp_path, "POST", "/v1/predict", ADMIN)
    assert (status, body["code"]) == (403, "missing_scope")
