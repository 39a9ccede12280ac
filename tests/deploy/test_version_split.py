"""Two replicas of two workers divide clients between versions alike, over every transport and in errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.deploy.release import Release
from tests.helpers.media import images
from tests.helpers.service import PATIENT, Service
from tests.helpers.waiting import wait_for
from tests.helpers.webrtc_client import WebrtcClient
from tests.helpers.wire_client import WireClient
from tests.unit.images import encode, scene

#: Clients that stand at 0.007 and at 0.682 of the way from 0 to 1, and the version of each with half of them.
CLIENTS = {"camera-0": "v2", "camera-1": "v1"}
SHARE = 0.5
NAME, COOKIE = "X-Model-Version", "rtva-client"
CHOSEN = "object_detection_split_requests_total"
IMAGE = images(1, (160, 120))[0]


@pytest.fixture(scope="module")
def release(null: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    settings = {"MODEL_V2_PATH": str(null), "WORKERS": "2", "SPLIT_V2": str(SHARE)}
    folder = tmp_path_factory.mktemp("versions")
    own = {number: {"VERSIONS_STATE_FILE": str(folder / f"{number}.json")} for number in range(2)}
    with Release(null, settings | PATIENT, own=own) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a session with a connection for each request, which any worker may get, and without cookies."""
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


def named(client: str) -> dict[str, str]:
    return {"X-Client-Id": client}


async def share(http: aiohttp.ClientSession, service: Service, v2: float) -> None:
    """Change the share of one replica."""
    async with http.put(f"{service.http_url}/versions/split", json={"v2": v2}) as answer:
        assert (answer.status, await answer.json()) == (200, {"v2": v2})


@pytest.mark.parametrize("client", CLIENTS)
async def test_every_transport_and_replica_gives_a_client_the_same_version(
    release: Release, http: aiohttp.ClientSession, client: str
) -> None:
    version, headers, image = CLIENTS[client], named(client), encode(scene())
    for service in (release[0], release[1]):
        for _ in range(4):
            async with http.post(f"{service.http_url}/predict", data=image, headers=headers) as answer:
                body = await answer.json()
                assert (answer.status, answer.headers[NAME]) == (200, version), body
                assert body["model"]["version"] == version
                assert "Set-Cookie" not in answer.headers
        async with WireClient(f"{service.ws_url}/stream", headers=headers) as stream:
            assert stream.socket.response is not None
            assert stream.socket.response.headers[NAME] == version
            assert (await stream.hello())["model"]["version"] == version
            await stream.send_frame(1, IMAGE)
            assert (await stream.receive("result"))["seq"] == 1
        async with http.get(f"{service.http_url}/webrtc", headers=headers) as answer:
            assert (answer.status, answer.headers[NAME]) == (200, version)
    for kind in ("webrtc", "whip"):
        async with WebrtcClient(f"{release[0].http_url}/{kind}", kind=kind, headers=headers) as video:
            assert video.response_headers[NAME] == version
            assert video.location.startswith(f"{release[0].http_url}/{version}/{kind}/")
            assert (await video.state())["state"] in ("connecting", "connected")
            if kind == "webrtc":
                assert video.answer["model"]["version"] == version


async def test_the_cookie_keeps_the_version_of_a_client_without_an_id(
    release: Release, http: aiohttp.ClientSession
) -> None:
    found = set()
    for number in range(24):
        here, there = release[number % 2], release[(number + 1) % 2]
        async with http.post(f"{here.http_url}/predict", data=encode(scene())) as answer:
            version = answer.headers[NAME]
            cookie = {"Cookie": f"{COOKIE}={answer.cookies[COOKIE].value}"}
        found.add(version)
        async with http.get(f"{there.http_url}/webrtc", headers=cookie) as answer:
            assert (answer.headers[NAME], COOKIE in answer.cookies) == (version, False)
        if number < 4:
            async with WireClient(f"{there.ws_url}/stream", headers=cookie) as stream:
                assert (await stream.hello())["model"]["version"] == version
    assert found == {"v1", "v2"}
    async with WireClient(f"{release[0].ws_url}/stream") as stream:  # the handshake sets the cookie, too
        assert stream.socket.response is not None
        assert f"{COOKIE}=" in stream.socket.response.headers["Set-Cookie"]
        version = (await stream.hello())["model"]["version"]
        assert stream.socket.response.headers[NAME] == version


@pytest.mark.parametrize("client", CLIENTS)
async def test_refusals_name_the_version(release: Release, http: aiohttp.ClientSession, client: str) -> None:
    url, version = release[0].http_url, CLIENTS[client]
    sdp = {"Content-Type": "application/sdp"}
    requests: list[tuple[str, str, int, dict[str, Any]]] = [
        ("POST", "/predict", 415, {"data": b"no image"}),
        ("POST", "/predict?conf_threshold=7", 400, {"data": encode(scene())}),
        ("POST", "/predict", 406, {"data": encode(scene()), "headers": {"Accept": "text/html"}}),
        ("POST", "/predict", 403, {"data": b"", "headers": {"Origin": "https://evil.example"}}),
        ("PUT", "/predict", 405, {}),
        ("GET", "/stream", 426, {}),
        ("POST", "/webrtc", 415, {"data": b"{}"}),
        ("POST", "/webrtc", 400, {"json": {"type": "offer"}}),
        ("POST", "/whip", 400, {"data": "no SDP", "headers": sdp}),
        ("GET", f"/{version}/whip/0-{'a' * 24}", 404, {}),
    ]
    for method, path, status, more in requests:
        headers = named(client) | more.pop("headers", {})
        async with http.request(method, url + path, headers=headers, **more) as answer:
            assert (answer.status, answer.headers.get(NAME)) == (status, version), (method, path)


async def test_pages_of_allowed_origins_read_the_version_and_name_themselves(
    release: Release, http: aiohttp.ClientSession
) -> None:
    """Browsers send the cookie only to their own site, so such pages need the header."""
    url = release[0].http_url
    async with http.post(f"{url}/predict", data=b"", headers={"Origin": url}) as answer:
        assert NAME in answer.headers["Access-Control-Expose-Headers"].split(", ")
    preflight = {"Origin": url, "Access-Control-Request-Method": "POST"}
    for path in ("/predict", "/webrtc", "/whip"):
        async with http.options(url + path, headers=preflight) as answer:
            assert answer.status == 204
            assert "X-Client-Id" in answer.headers["Access-Control-Allow-Headers"].split(", ")
            assert not {NAME, "Set-Cookie"} & answer.headers.keys()


async def test_a_changed_share_holds_for_all_workers_at_once(
    release: Release, http: aiohttp.ClientSession
) -> None:
    service = release[0]
    try:
        for v2, expected in (
            (0.0, ["v1", "v1"]),
            (0.6, ["v2", "v1"]),
            (0.7, ["v2", "v2"]),
            (1, ["v2", "v2"]),
        ):
            await share(http, service, v2)
            for client, version in zip(CLIENTS, expected, strict=True):
                for _ in range(6):
                    async with http.get(f"{service.http_url}/webrtc", headers=named(client)) as answer:
                        assert answer.headers[NAME] == version, (v2, client)
        assert service.get_json("/versions")["split"] == {"v2": 1.0}
        before = service.metric(CHOSEN, version="v2", chosen_by="client_id")
        async with http.get(f"{service.http_url}/webrtc", headers=named("camera-0")):
            pass
        wait_for(lambda: service.metric(CHOSEN, version="v2", chosen_by="client_id") == before + 1)
    finally:
        await share(http, service, SHARE)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["at its replica", "at another replica"])
async def test_a_session_that_is_resumed_keeps_its_version(
    release: Release, http: aiohttp.ClientSession, elsewhere: bool
) -> None:
    """The share has changed meanwhile, so that the split would choose the other version."""
    here, there = release[0], release[1 if elsewhere else 0]
    headers = named("camera-1")
    try:
        async with WireClient(f"{here.ws_url}/stream", headers=headers) as stream:
            welcome = await stream.hello(params={"conf_threshold": 0.625})
            assert welcome["model"]["version"] == "v1"
            await stream.send_frame(1, IMAGE)
            await stream.receive("result")
            assert stream.socket.transport is not None
            stream.socket.transport.abort()
        await share(http, there, 1)
        # Any worker may get the connection, and the others know the session, too.
        for seq in (2, 3, 4):
            async with WireClient(f"{there.ws_url}/stream", headers=headers) as stream:
                resumed = await stream.hello(resume={"session": welcome["session"]})
                assert (resumed["resumed"], resumed["model"]["version"]) == (True, "v1")
                assert resumed["params"]["conf_threshold"] == 0.625
                await stream.send_frame(seq, IMAGE)
                assert (await stream.receive("result"))["seq"] == seq
                assert stream.socket.transport is not None
                stream.socket.transport.abort()
            welcome = resumed
        async with WireClient(f"{there.ws_url}/stream", headers=headers) as stream:
            assert (await stream.hello())["model"]["version"] == "v2", "a new session"
        async with WireClient(f"{there.ws_url}/v2/stream", headers=headers) as stream:
            fixed = await stream.hello(resume={"session": welcome["session"]})
            assert (fixed["resumed"], fixed["model"]["version"]) == (False, "v2"), "the path names it"
    finally:
        await share(http, there, SHARE)


async def test_a_stream_that_is_passed_on_keeps_its_version(
    release: Release, http: aiohttp.ClientSession
) -> None:
    """What the first replica sends the other one names the version, so the other one does not choose."""
    hop: dict[str, Any] = {"X-Replica-Hop": release.names[0], NAME: "v1"}
    service = release[1]
    before = service.metric(CHOSEN)
    async with WireClient(f"{service.ws_url}/stream", headers=hop | named("camera-0")) as stream:
        assert (await stream.hello())["model"]["version"] == "v1"
    async with http.get(f"{service.http_url}/webrtc", headers=hop) as answer:
        assert (answer.headers[NAME], "Set-Cookie" in answer.headers) == ("v1", False)
    assert service.metric(CHOSEN) == before, "counted by the first replica"


async def test_shares_of_clients_and_of_frames_survive_a_restart(
    release: Release, http: aiohttp.ClientSession
) -> None:
    """The last test of this file: the other replica is not restarted."""
    await share(http, release[0], 0.25)
    async with http.put(f"{release[0].http_url}/versions/shadow", json={"v2": 0.125}) as answer:
        assert answer.status == 200, await answer.text()
    release.end(0)
    release.start()
    versions = release[0].get_json("/versions")
    assert (versions["split"], versions["shadow"]) == ({"v2": 0.25}, {"v2": 0.125})
    assert release[1].get_json("/versions")["split"] == {"v2": SHARE}
