"""The split of clients between versions: exact shares, one direction, no store, and names in every answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.typedefs import Handler

from inference.ipc.shared_status import SharedStatus
from streamer.access.access_settings import AccessSettings
from streamer.access.identity import Identity
from streamer.accounting.ledger import VERSIONS
from streamer.core.byte_budget import ByteBudget
from streamer.http.authentication import make_authenticator
from streamer.http.body import BUDGET
from streamer.http.caller import IDENTITY
from streamer.http.path_prefix import PATH_PREFIX, PathPrefix
from streamer.http.problem_details import Problem, problem_middleware
from streamer.http.version_split import CLIENT_COOKIE, SPLIT, VersionSplit, place_of, version_of
from streamer.server.split_routes import SplitRoutes

CLIENTS = 200_000
#: Largest difference between the share of clients and the weight: half a percent.
TOLERANCE = 0.005
#: Clients that stand at 0.007 and at 0.682.
LOW, HIGH = "camera-0", "camera-1"


@pytest.fixture(scope="module")
def places() -> list[float]:
    """Return the places of many clients, whose ids differ only in a number, as those of cameras do."""
    return [place_of(f"camera-{number}") for number in range(CLIENTS)]


@pytest.mark.parametrize("weight", [0.001, 0.01, 0.1, 0.2, 1 / 3, 0.5, 0.9, 0.999])
def test_the_share_of_clients_is_the_weight(places: list[float], weight: float) -> None:
    assert abs(sum(place < weight for place in places) / CLIENTS - weight) < TOLERANCE


def test_the_share_is_the_weight_in_every_group_of_clients(places: list[float]) -> None:
    """Neighbouring numbers, and every tenth number, are divided like all of them."""
    for group in (places[:20_000], places[::10], places[3::10]):
        assert abs(sum(place < 0.1 for place in group) / len(group) - 0.1) < 2 * TOLERANCE


def test_a_higher_weight_moves_clients_in_one_direction_only(places: list[float]) -> None:
    moved = Counter((place < 0.1, place < 0.2) for place in places)
    assert moved[True, False] == 0
    assert abs(moved[False, True] / CLIENTS - 0.1) < TOLERANCE


def test_nobody_gets_v2_at_weight_0_and_everybody_at_1(places: list[float]) -> None:
    assert min(places) >= 0
    assert max(places) < 1


def test_places_never_change() -> None:
    """Replicas of two releases must agree during a rollout; these values are those of the first release."""
    assert [round(place_of(client), 6) for client in ("a", "camera-1", "žluťoučký")] == [
        *(0.253794, 0.681796, 0.156543)
    ]
    assert place_of("\udcff") != place_of("?")  # header values that are no UTF-8


def test_another_salt_draws_all_clients_anew(places: list[float]) -> None:
    """Clients of the first tenth are spread over all places by another salt."""
    first = [number for number, place in enumerate(places) if place < 0.1]
    again = sum(place_of(f"camera-{number}", "summer") < 0.1 for number in first)
    assert abs(again / len(first) - 0.1) < 2 * TOLERANCE


class Site:
    """An application whose split the test sets; ``choices`` counts what chose a version."""

    def __init__(self, folder: Path) -> None:
        self.weight = 0.5
        self.versions = {"v1", "v2"}
        self.choices: Counter[tuple[str, str]] = Counter()
        self.app = web.Application(middlewares=[problem_middleware])
        split = VersionSplit(
            lambda: self.weight, lambda version: version in self.versions, VERSIONS, self._count
        )
        self.app[SPLIT] = split
        addresses = make_authenticator(AccessSettings(), folder).addresses
        self.app[PATH_PREFIX] = PathPrefix("/vision", addresses)
        self.app.on_response_prepare.append(split.name_version)
        for path in ("/predict", "/{version:v[0-9]+}/predict"):
            self.app.router.add_post(path, self._predict)
        self.app.router.add_get("/health", self._predict)

    def _count(self, version: str, by: str) -> None:
        self.choices[version, by] += 1

    async def _predict(self, request: web.Request) -> web.Response:
        if request.query_string:
            raise Problem(int(request.query_string), "refused", "The test asked for it.")
        return web.Response(text=version_of(request))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
async def client(site: Site) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    async with TestClient(TestServer(site.app)) as running:
        yield running


Client = TestClient[web.Request, web.Application]


async def ask(client: Client, path: str = "/predict", **headers: str) -> tuple[str | None, str | None]:
    """Return the version that an answer names and the value of its cookie."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    client.session.cookie_jar.clear()  # only cookies that a test names
    async with client.post(path, headers=named) as answer:
        assert (await answer.text()) == answer.headers.get("X-Model-Version")
        cookies = SimpleCookie(answer.headers.get("Set-Cookie", ""))
        morsel = cookies.get(CLIENT_COOKIE)
        return answer.headers.get("X-Model-Version"), None if morsel is None else morsel.value


async def test_the_id_decides_and_no_cookie_is_set(site: Site, client: Client) -> None:
    assert await ask(client, X_Client_Id=LOW) == ("v2", None)
    assert await ask(client, X_Client_Id=HIGH) == ("v1", None)
    site.weight = 0.7
    assert await ask(client, X_Client_Id=HIGH) == ("v2", None)
    assert site.choices == {("v2", "client_id"): 2, ("v1", "client_id"): 1}


async def test_the_cookie_decides_for_a_client_that_does_not_name_itself(site: Site, client: Client) -> None:
    found = set()
    for _ in range(40):
        version, value = await ask(client)
        assert value is not None
        found.add(version)
        assert await ask(client, Cookie=f"a=b; {CLIENT_COOKIE}={value}") == (version, None)
        # The id has precedence over the cookie.
        assert await ask(client, Cookie=f"{CLIENT_COOKIE}={value}", X_Client_Id=LOW) == ("v2", None)
    assert found == {"v1", "v2"}


async def test_a_cookie_that_is_not_ours_is_replaced(client: Client) -> None:
    for value in ("", "short", "x" * 23, "x" * 21 + "."):
        assert (await ask(client, Cookie=f"{CLIENT_COOKIE}={value}"))[1] is not None, value


async def test_the_cookie_is_kept_from_scripts_and_other_sites(client: Client) -> None:
    plain = (await client.post("/predict")).headers["Set-Cookie"]
    assert plain.split("; ")[1:] == ["Path=/vision", "Max-Age=31536000", "HttpOnly", "SameSite=Lax"]
    secure = (await client.post("/predict", headers={"X-Forwarded-Proto": "https"})).headers["Set-Cookie"]
    assert secure.endswith("; SameSite=Lax; Secure")


async def test_without_a_share_everybody_gets_v1_and_no_cookie(site: Site, client: Client) -> None:
    site.weight = 0.0
    assert await ask(client, X_Client_Id=LOW) == ("v1", None)
    site.weight, site.versions = 1.0, {"v1"}  # v2 is not served
    assert await ask(client, X_Client_Id=LOW) == ("v1", None)
    assert site.choices == {("v1", "default"): 2}


async def test_a_gateway_and_the_path_choose_before_the_split(site: Site, client: Client) -> None:
    assert await ask(client, X_Model_Version="v1", X_Client_Id=LOW) == ("v1", None)
    assert await ask(client, "/v1/predict", X_Model_Version="v2", X_Client_Id=LOW) == ("v1", None)
    assert await ask(client, "/v2/predict") == ("v2", None)
    assert site.choices == {("v1", "header"): 1}


async def test_refusals_name_the_version_too(client: Client) -> None:
    for path, version in (("/predict", "v2"), ("/v1/predict", "v1"), ("/v2/predict", "v2")):
        for status in (400, 401, 404, 429, 500, 503):
            async with client.post(f"{path}?{status}", headers={"X-Client-Id": LOW}) as answer:
                assert (answer.status, answer.headers.get("X-Model-Version")) == (status, version)
    async with client.get("/predict", headers={"X-Client-Id": LOW}) as answer:  # the router refuses
        assert (answer.status, answer.headers.get("X-Model-Version")) == (405, "v2")
    async with client.get("/v1/whip/abc") as answer:
        assert (answer.status, answer.headers.get("X-Model-Version")) == (404, "v1")


async def test_answers_of_no_version_name_none(site: Site, client: Client) -> None:
    for method, path in (("GET", "/health"), ("GET", "/predictions")):
        async with client.request(method, path) as answer:
            assert "X-Model-Version" not in answer.headers, path
            assert "Set-Cookie" not in answer.headers, path
    for unknown, named in (("v9", "v9"), ("canary", None), ("v" + "1" * 10, None)):
        async with client.post("/predict", headers={"X-Model-Version": unknown}) as answer:
            assert (await answer.text(), answer.headers.get("X-Model-Version")) == (unknown, named)
    assert site.choices == {("unknown", "header"): 3}
    async with client.options("/predict") as answer:
        assert not {"X-Model-Version", "Set-Cookie"} & answer.headers.keys()


async def test_a_share_is_refused_while_there_is_no_v2() -> None:
    status, versions = SharedStatus(), {"v1"}
    split = VersionSplit(lambda: 0.0, versions.__contains__, VERSIONS, lambda *_: None)
    app = web.Application(middlewares=[problem_middleware, as_administrator])
    app[BUDGET] = ByteBudget(1 << 20)
    app.router.add_put("/versions/split", SplitRoutes(split, status, 60.0).update)
    async with TestClient(TestServer(app)) as client:
        async with client.put("/versions/split", json={"v2": 0.1}) as answer:
            told = await answer.json()
            assert (answer.status, told["code"]) == (409, "not_loaded")
            assert "No model of v2 is loaded here" in told["detail"]
        async with client.put("/versions/split", json={"v2": 0}) as answer:
            assert answer.status == 200
        versions.add("v2")  # loaded meanwhile
        async with client.put("/versions/split", json={"v2": 0.1}) as answer:
            assert answer.status == 200
    assert status.read("split_v2") == 0.1


@web.middleware
async def as_administrator(request: web.Request, handler: Handler) -> web.StreamResponse:
    request[IDENTITY] = Identity("admin", frozenset())
    return await handler(request)


async def test_what_a_replica_passes_on_is_counted_once(site: Site, client: Client) -> None:
    assert await ask(client, X_Model_Version="v2", X_Replica_Hop="a" * 8) == ("v2", None)
    assert site.choices == {}
