"""Tests access control over real sockets: host names, origins, keys, routes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from websockets.exceptions import ConnectionClosed, InvalidStatus

from streamer.http.route_policy import ROUTES, Entry, policy_of
from tests.helpers.application import make_routes
from tests.helpers.keyed_requests import ANN, BOB, ask, bearer
from tests.helpers.ports import free_port
from tests.helpers.service import Service
from tests.helpers.wire_client import WireClient

PAGE = "https://app.example.com"
#: Method, path and content type of routes that change state or use resources, and so require a key.
GUARDED = [
    ("POST", "/predict", "image/jpeg"),
    ("POST", "/v1/predict", "image/jpeg"),
    ("POST", "/v1/webrtc", "application/json"),
    ("GET", "/v1/webrtc", ""),
    ("PATCH", "/v1/webrtc/0-aaaaaaaaaaaaaaaaaaaaaaaa", "application/json"),
    ("DELETE", "/v1/webrtc/0-aaaaaaaaaaaaaaaaaaaaaaaa", ""),
    ("GET", "/v1/webrtc/0-aaaaaaaaaaaaaaaaaaaaaaaa/results", ""),
    ("POST", "/v1/whip", "application/sdp"),
    ("DELETE", "/v1/whip/0-aaaaaaaaaaaaaaaaaaaaaaaa", ""),
    ("POST", "/v1/stream/0-aaaaaaaaaaaaaaaaaaaaaaaa", ""),
    ("GET", "/drift/report", ""),
    ("POST", "/reference/update", "application/json"),
]


@pytest.fixture(scope="module")
def anyone(null_path: Path) -> Iterator[Service]:
    """Yield a service without keys that allows one host name and one origin besides its own."""
    settings = {"ALLOWED_HOSTS": "vision.example.com", "ALLOWED_ORIGINS": PAGE}
    with Service({"MODEL_V1_PATH": str(null_path)} | settings) as running:
        yield running


@pytest.mark.parametrize(("method", "path", "kind"), GUARDED)
async def test_pages_of_other_sites_get_no_answer_from_any_route_that_matters(
    anyone: Service, http: aiohttp.ClientSession, method: str, path: str, kind: str
) -> None:
    url, headers = anyone.http_url + path, {"Content-Type": kind} if kind else {}
    for origin in ("https://evil.example", "null", anyone.http_url.replace("http", "https")):
        status, answer, told = await ask(http, method, url, b"x" if kind else None, Origin=origin, **headers)
        assert (status, answer["code"]) == (403, "forbidden")
        assert "Access-Control-Allow-Origin" not in told
        assert "Origin" in told["Vary"]
    status, answer, _ = await ask(http, method, url, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors")
    assert (status, answer["code"]) == (403, "forbidden")
    for origin in (anyone.http_url, PAGE):
        status, _, told = await ask(http, method, url, b"x" if kind else None, Origin=origin, **headers)
        assert status not in (401, 403)
        assert told["Access-Control-Allow-Origin"] == origin
        assert "Access-Control-Allow-Credentials" not in told


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/drift/status", "/openapi.json", "/v1/predict", "/nothing"]
)
async def test_a_name_that_is_not_ours_reaches_nothing(
    anyone: Service, http: aiohttp.ClientSession, path: str
) -> None:
    for host in ("evil.example", "127.0.0.1.nip.io", f"localhost.evil.example:{anyone.port}"):
        status, answer, _ = await ask(http, "GET", anyone.http_url + path, Host=host)
        assert (status, answer["code"]) == (403, "host_not_allowed")
        assert "ALLOWED_HOSTS" in answer["detail"]
    for host in ("vision.example.com", "localhost:1", "10.1.2.3:8000", "[fd00::1]:8000"):
        status, _, _ = await ask(http, "GET", anyone.http_url + path, Host=host)
        assert status != 403


async def test_a_page_of_a_name_that_was_pointed_here_opens_no_socket(anyone: Service) -> None:
    headers = {"Host": "evil.example", "Origin": "http://evil.example"}
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(f"{anyone.http_url}/v1/stream", headers=headers)
    assert refused.value.status == 403


async def test_probes_answer_under_any_name(anyone: Service, http: aiohttp.ClientSession) -> None:
    for path in ("/livez", "/health"):
        assert (await ask(http, "GET", anyone.http_url + path, Host="balancer.example"))[0] == 200


async def test_a_browser_is_told_what_a_page_of_an_allowed_origin_may_send(
    anyone: Service, http: aiohttp.ClientSession
) -> None:
    wants = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization"}
    for path in ("/predict", "/whip", "/v1/predict", "/v1/whip", "/v1/webrtc", "/reference/update"):
        status, _, told = await ask(http, "OPTIONS", anyone.http_url + path, Origin=PAGE, **wants)
        assert (status, told["Access-Control-Allow-Origin"]) == (204, PAGE)
        assert "POST" in told["Access-Control-Allow-Methods"]
        allowed = {name.strip().lower() for name in told["Access-Control-Allow-Headers"].split(",")}
        own = {
            "x-request-id",
            "x-client-id",
            "x-model-version",
            "last-event-id",
            "if-match",
            "traceparent",
            "tracestate",
        }
        assert own | {"authorization", "content-type"} <= allowed
        assert int(told["Access-Control-Max-Age"]) > 0
        assert "Origin" in told["Vary"]
        assert "Access-Control-Allow-Credentials" not in told
        _, _, told = await ask(
            http, "OPTIONS", anyone.http_url + path, Origin="https://evil.example", **wants
        )
        assert "Access-Control-Allow-Origin" not in told
    assert (await ask(http, "OPTIONS", f"{anyone.http_url}/v1/predict"))[0] == 405
    _, _, told = await ask(http, "POST", f"{anyone.http_url}/v1/predict", b"x", Origin=PAGE)
    exposed = {name.strip() for name in told["Access-Control-Expose-Headers"].split(",")}
    assert {"X-Request-Id", "X-Model-Version", "Retry-After", "Location"} <= exposed


@pytest.mark.parametrize("name", ["token", "api_key", "access_token", "Authorization", "key"])
async def test_a_key_in_the_address_is_refused_and_never_logged(
    keyed: Service, http: aiohttp.ClientSession, name: str
) -> None:
    for path in ("/v1/predict", "/v1/stream", "/drift/report", "/v1/webrtc"):
        url = f"{keyed.http_url}{path}?{name}={ANN}"
        status, answer, _ = await ask(http, "GET" if "predict" not in path else "POST", url)
        assert (status, answer["code"]) == (400, "key_in_query")
        assert ANN not in str(answer)
    assert ANN not in keyed.log


async def test_without_a_key_a_socket_is_closed_before_anything_is_opened(keyed: Service) -> None:
    url = f"{keyed.ws_url}/v1/stream"
    for token in (None, "wrong", ANN + " "):
        async with WireClient(url) as client:
            await client.send({"type": "hello"} | ({"token": token} if token else {}))
            with pytest.raises(ConnectionClosed) as closed:
                await client.receive("welcome")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401
    with pytest.raises(InvalidStatus) as refused:
        async with WireClient(url, headers=bearer("wrong")):
            pass
    assert refused.value.response.status_code == 401


def test_every_route_has_a_policy_and_every_policy_a_route(routes: list[web.AbstractRoute]) -> None:
    found = {(route.method, route.resource.canonical) for route in routes if route.resource is not None}
    without = {entry for entry in found if policy_of(*entry) is None}
    assert without == set(), "say in streamer/http/route_policy.py who may use these"
    assert set(ROUTES) - found == set(), "these are not routed any more"


def test_only_probes_pages_and_reduced_answers_are_open(routes: list[web.AbstractRoute]) -> None:
    open_to_all = {
        route.resource.canonical
        for route in routes
        if route.resource is not None
        and (policy := policy_of(route.method, route.resource.canonical)) is not None
        and policy.entry in (Entry.PROBE, Entry.OPEN, Entry.REDUCED)
        and not route.resource.canonical.startswith(("/static/", "/docs"))
    }
    pages = {"/", "/favicon.ico", "/openapi.json", "/redoc", "/data/sample.mp4"}
    reduced = {"/metrics", "/versions", "/drift/status"}
    assert open_to_all - pages == {"/health", "/livez", "/tickets/{session}"} | reduced


@pytest.fixture(scope="module")
def routes() -> list[web.AbstractRoute]:
    """Return every route of a worker's application."""
    return make_routes()


async def test_no_route_is_entered_without_a_key(
    keyed: Service, http: aiohttp.ClientSession, routes: list[web.AbstractRoute]
) -> None:
    names = {"version": "v1", "session": "0-aaaaaaaaaaaaaaaaaaaaaaaa", "picture": "0-0"}
    tried = 0
    for route in routes:
        assert route.resource is not None
        path = route.resource.canonical
        policy = policy_of(route.method, path)
        assert policy is not None
        if policy.entry not in (Entry.KEY, Entry.ADMIN):
            continue
        for kind in ("webrtc", "whip") if "{kind}" in path else ("",):
            if (kind, route.method, path.removeprefix("/{version}")) == ("whip", "GET", "/{kind}"):
                continue  # WHIP answers 405 there
            url = keyed.http_url + path.format(**names, kind=kind)
            for headers in ({}, bearer("wrong"), {"Authorization": f"Basic {ANN}"}, bearer(ANN[:-1])):
                status = (await ask(http, route.method, url, **headers))[0]
                # After too many wrong keys from an address, the service answers unknown keys with 429.
                assert status == 401 or (status == 429 and headers), (route.method, path)
                tried += 1
    assert tried > 40


async def test_metrics_may_have_a_port_of_their_own(null_path: Path, http: aiohttp.ClientSession) -> None:
    port = free_port()
    settings = {"MODEL_V1_PATH": str(null_path), "METRICS_PORT": str(port), "WORKERS": "2"}
    with Service(settings | {"API_KEYS": ANN}) as service:
        own = f"http://127.0.0.1:{port}"
        for headers in ({}, bearer(ANN)):
            assert (await ask(http, "GET", f"{service.http_url}/metrics", **headers))[0] == 404
        for _ in range(4):
            async with http.get(f"{own}/metrics") as response:
                assert "object_detection_frames_received_total" in await response.text()
        assert (await ask(http, "GET", f"{own}/livez"))[0] == 200
        for path in ("/", "/v1/predict", "/drift/status", "/docs"):
            assert (await ask(http, "GET", own + path))[0] == 404
        assert (await ask(http, "GET", f"{own}/metrics", Host="evil.example"))[0] == 403
        for path in ("/metrics", "/health", "/nothing"):
            told = (await ask(http, "GET", own + path))[2]
            assert (told["Server"], told["X-Content-Type-Options"]) == ("streamer", "nosniff")
        service.workers[0].kill()
        for _ in range(20):
            assert (await ask(http, "GET", f"{own}/metrics"))[0] == 200, "the successor answers who waits"


async def test_wrong_keys_are_slowed_down_and_good_ones_are_not(
    null_path: Path, http: aiohttp.ClientSession
) -> None:
    settings = {"MODEL_V1_PATH": str(null_path), "API_KEYS": f"{ANN},{BOB}", "WORKERS": "1"}
    with Service(settings) as service:
        url = f"{service.http_url}/v1/webrtc"
        assert (await ask(http, "GET", url, **bearer(ANN)))[0] == 200
        statuses = [(await ask(http, "GET", url, **bearer(f"guess {n}")))[0] for n in range(20)]
        assert statuses == [401] * 20
        # One more guess is looked at in each second, so the answer to some guesses may still be 401.
        async with asyncio.timeout(60):
            status, headers = 401, dict[str, str]()
            while status == 401:
                status, _, headers = await ask(http, "GET", url, **bearer("another guess"))
            assert (status, headers["Retry-After"]) == (429, "1")
            code = 4401
            while code == 4401:
                async with WireClient(f"{service.ws_url}/v1/stream") as client:
                    await client.send({"type": "hello", "token": "guess", "streams": [{"id": 0}]})
                    code = (await client.closed())[0]
            assert code == 4429
        assert (await ask(http, "GET", url, **bearer(ANN)))[0] == 200, "it was good before"
        assert service.metric("object_detection_keys_refused_total", reason="wrong") >= 20
        assert service.metric("object_detection_keys_refused_total", reason="limited") >= 2
