"""Keys of administrators: they alone have the scope `admin` as soon as there are any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request

from streamer.access.access_settings import AccessNotConfigured, AccessSettings, check_access
from streamer.access.identity import ALL_SCOPES, Scope
from streamer.access.key_ring import KeyRing
from streamer.http.authentication import make_authenticator
from streamer.http.caller import identity_of, is_local
from streamer.http.guard import Guard
from streamer.http.origins import OriginPolicy
from streamer.http.problem_details import problem_middleware
from streamer.http.route_policy import ROUTES, Entry, Policy

#: Stands for the routes that change what is served.
CHANGE = "/change"
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


async def _ask(
    settings: AccessSettings, folder: Path, method: str, path: str, key: str, **headers: str
) -> tuple[int, Any]:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(sorted(identity_of(request).scopes))

    app = web.Application(middlewares=[problem_middleware])
    Guard(make_authenticator(settings, folder), OriginPolicy()).add_to(app)
    app.router.add_post("/reference/update", answer)
    app.router.add_get("/versions", answer)
    app.router.add_post("/{version}/predict", answer)
    app.router.add_post(CHANGE, answer)
    if key:
        headers["Authorization"] = f"Bearer {key}"
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


@pytest.fixture
def change_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a route that changes what is served."""
    monkeypatch.setitem(ROUTES, ("POST", CHANGE), Policy(Entry.ADMIN, Scope.ADMIN))


@pytest.mark.usefixtures("change_route")
@pytest.mark.parametrize(
    "settings",
    [
        AccessSettings(api_keys=CLIENT),
        AccessSettings(admin_api_keys=ADMIN),
        AccessSettings(api_keys=CLIENT, admin_api_keys=ADMIN),
    ],
)
async def test_where_administrators_have_keys_programs_on_this_machine_need_one(
    settings: AccessSettings, tmp_path: Path
) -> None:
    assert (await _ask(settings, tmp_path, "POST", CHANGE, ""))[0] == 401
    key = ADMIN if settings.admin_keys else CLIENT
    assert (await _ask(settings, tmp_path, "POST", CHANGE, key))[0] == 200


@pytest.mark.usefixtures("change_route")
async def test_without_keys_only_programs_on_this_machine_change_what_is_served(tmp_path: Path) -> None:
    assert (await _ask(AccessSettings(), tmp_path, "POST", CHANGE, ""))[0] == 200
    for name in ("Forwarded", "Via", "X-Forwarded-For", "X-Real-IP", "X-Forwarded-Host"):
        status, body = await _ask(AccessSettings(), tmp_path, "POST", CHANGE, "", **{name: "127.0.0.1"})
        assert (status, body["code"]) == (403, "forbidden"), name
        assert "ADMIN_API_KEYS" in body["detail"]
    behind_proxy = AccessSettings(trusted_proxies="127.0.0.0/8")
    assert (await _ask(behind_proxy, tmp_path, "POST", CHANGE, ""))[0] == 403


@pytest.mark.parametrize(
    ("remote", "local"),
    [
        *(("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("::ffff:127.0.0.1", True)),
        *(("192.0.2.1", False), ("fd00::1", False), ("", False), (None, False)),
    ],
)
def test_who_is_on_this_machine(remote: str | None, local: bool) -> None:
    """A request that another worker passes on over its socket has no address."""
    request = make_mocked_request("POST", CHANGE)
    assert is_local(request if remote is None else request.clone(remote=remote)) is local
