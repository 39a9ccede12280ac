"""Tests ``/v1/whip`` (RFC 9725) of a real service with two workers: many requests reach the wrong worker."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from tests.helpers.ports import free_ports
from tests.helpers.service import PATIENT, Service
from tests.helpers.webrtc_client import WebrtcClient

SECRET = "dummy-turn-secret"  # noqa: S105 - a dummy
SETTINGS = {
    **PATIENT,
    "WORKERS": "2",
    "TURN_SECRET": SECRET,
    "ALLOWED_ORIGINS": "https://studio.example",
    "TRUSTED_PROXIES": "127.0.0.1",
}
VP9_ONLY = """v=0\r
o=- 1 2 IN IP4 127.0.0.1\r
s=-\r
t=0 0\r
m=video 9 UDP/TLS/RTP/SAVPF 98\r
a=mid:0\r
a=sendonly\r
a=rtcp-mux\r
a=ice-ufrag:abcd\r
a=ice-pwd:abcdefghijklmnopqrstuv\r
a=fingerprint:sha-256 {}\r
a=setup:actpass\r
a=rtpmap:98 VP9/90000\r
""".format(":".join(["AB"] * 32))


@pytest.fixture(scope="module")
def silent() -> Iterator[socket.socket]:
    """Open a socket that acts as a STUN and TURN server behind a firewall: it never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.setblocking(False)
        yield bound


@pytest.fixture(scope="module")
def media_ports() -> list[int]:
    """Return a range of ports for media."""
    return free_ports(100, socket.SOCK_DGRAM)


@pytest.fixture(scope="module")
def replica(silent: socket.socket, media_ports: list[int]) -> Iterator[Service]:
    """Start a service with two workers that uses the silent STUN and TURN server."""
    port = silent.getsockname()[1]
    servers = {"ICE_SERVERS": f"stun:127.0.0.1:{port},turn:127.0.0.1:{port}?transport=udp"}
    ports_of_media = {"UDP_PORT_RANGE": f"{media_ports[0]}-{media_ports[-1]}"}
    with Service(SETTINGS | servers | ports_of_media) as running:
        yield running


@pytest.fixture
def url(replica: Service) -> str:
    return f"{replica.http_url}/v1/whip"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    # Each request opens a new connection, so it may reach either worker.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


async def post(http: aiohttp.ClientSession, url: str, sdp: str, **headers: str) -> aiohttp.ClientResponse:
    response = await http.post(url, data=sdp, headers={"Content-Type": "application/sdp"} | headers)
    await response.read()
    return response


async def test_the_answer_does_not_wait_for_a_stun_server_that_is_silent(
    url: str, silent: socket.socket
) -> None:
    answers_s = []
    for _ in range(4):  # so that both workers probably answer their first offer
        async with WebrtcClient(url, kind="whip") as client:
            answers_s.append(client.answer_s)
    # The service waits 1 s for the STUN server; the ICE library alone would wait 5 s, each time. On a busy
    # machine some answers take longer.
    assert min(answers_s) < 5, answers_s
    assert len(silent.recv(2000)) >= 20  # the server received a STUN request


async def test_a_publisher_is_answered_as_the_rfc_wants_it(
    url: str, http: aiohttp.ClientSession, silent: socket.socket
) -> None:
    port = silent.getsockname()[1]
    async with WebrtcClient(f"{url}?conf_threshold=0.4&classes=0", kind="whip") as client:
        headers = client.response_headers
        assert headers["Content-Type"].startswith("application/sdp")
        assert client.location.startswith(f"{url}/")
        assert re.fullmatch(r'"[0-9a-f]+"', headers["ETag"])
        assert headers["Accept-Patch"] == "application/trickle-ice-sdpfrag"
        links = headers.getall("Link")
        assert links[0] == f'<stun:127.0.0.1:{port}>; rel="ice-server"'
        turn = re.fullmatch(
            rf'<turn:127\.0\.0\.1:{port}\?transport=udp>; rel="ice-server"; username="((\d+):\w+)"; '
            r'credential="(.+)"; credential-type="password"',
            links[1],
        )
        assert turn is not None
        assert 3000 < int(turn.group(2)) - time.time() <= 3600
        digest = hmac.new(SECRET.encode(), turn.group(1).encode(), hashlib.sha1).digest()
        assert turn.group(3) == base64.b64encode(digest).decode()
        assert links[2] == f'<{client.location}/results>; rel="results"; type="text/event-stream"'
        # Read results several times, so that both workers serve them.
        for _ in range(6):
            async with http.get(f"{client.location}/results") as events:
                assert events.content_type == "text/event-stream"
                assert "result" in await kinds(events, "result")
            async with http.ws_connect(f"{client.location}/results") as socket:
                assert (await socket.receive_json())["type"] == "welcome"
                await socket.send_json({"type": "ping", "t0": 1})
                async with asyncio.timeout(60):
                    while (await socket.receive_json())["type"] != "pong":
                        pass
            async with http.get(client.location) as response:
                assert (await response.json())["state"] == "connected"
        for _ in range(4):
            async with http.delete(client.location) as response:
                assert response.status == 200
        async with http.get(f"{client.location}/results") as response:
            assert (response.status, response.content_type) == (410, "application/problem+json")
        async with http.delete(client.location.replace("/whip/", "/webrtc/")) as response:
            assert response.status == 404


async def kinds(events: aiohttp.ClientResponse, until: str) -> set[str]:
    """Return the message types up to the first ``until``; the data of each event must be JSON."""
    seen: set[str] = set()
    async with asyncio.timeout(60):
        while until not in seen:
            line = (await events.content.readline()).decode()
            assert line, "the events have ended"
            if line.startswith("data: "):
                message: dict[str, Any] = json.loads(line[6:])
                seen.add(message["type"])
    return seen


async def test_events_end_with_bye_when_the_session_does(url: str, http: aiohttp.ClientSession) -> None:
    async with (
        WebrtcClient(url, kind="whip") as client,
        http.get(f"{client.location}/results") as events,
    ):
        await http.delete(client.location)
        assert "bye" in await kinds(events, "bye")
        async with asyncio.timeout(60):
            await events.content.read()


async def test_candidates_are_patched_with_the_etag(url: str, http: aiohttp.ClientSession) -> None:
    async with WebrtcClient(url, kind="whip") as client:
        fragment = "application/trickle-ice-sdpfrag"
        etag = client.response_headers["ETag"]
        ufrag = next(
            line for line in client.peer.localDescription.sdp.splitlines() if line.startswith("a=ice-ufrag:")
        )
        body = f"{ufrag}\r\nm=video 9 x 96\r\na=mid:0\r\na=candidate:1 1 udp 1 8.8.8.8 40000 typ host\r\n"
        for headers, data, status in (
            ({"Content-Type": fragment, "If-Match": etag}, "a=ice-ufrag:other\r\n", 422),
            ({"Content-Type": fragment}, body, 428),
            ({"Content-Type": fragment, "If-Match": '"other"'}, body, 412),
            ({"Content-Type": "text/plain", "If-Match": etag}, body, 415),
            ({"Content-Type": fragment, "If-Match": etag}, "nonsense", 400),
            ({"Content-Type": fragment, "If-Match": etag}, "a=candidate:nonsense\r\n", 400),
            ({"Content-Type": fragment, "If-Match": etag}, body.replace("8.8.8.8", "127.0.0.1"), 204),
        ):
            async with http.patch(client.location, data=data, headers=headers) as response:
                assert response.status == status, (await response.text(), headers, data)
                if status >= 400:
                    assert response.content_type == "application/problem+json"


async def test_a_vp9_only_offer_is_told_which_codecs_are_taken(url: str, http: aiohttp.ClientSession) -> None:
    response = await post(http, url, VP9_ONLY)
    problem = await response.json()
    assert (response.status, response.content_type) == (422, "application/problem+json")
    assert (
        problem["detail"] == "The offer has VP9; taken are VP8, H.264 (baseline, main, high; 8 bits, 4:2:0)."
    )
    assert problem["code"] == "unsupported_codec"


async def test_wrong_requests_are_problems(url: str, http: aiohttp.ClientSession) -> None:
    async with http.post(url, data="v=0", headers={"Content-Type": "text/plain"}) as response:
        assert response.status == 415
    assert (await post(http, f"{url}?conf_threshold=9", VP9_ONLY)).status == 400
    assert (await post(http, f"{url}?unknown=9", VP9_ONLY)).status == 400
    assert (await post(http, url, "v=0\r\n" + "a=x\r\n" * 20_000)).status == 413
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
        async with http.request(method, url) as response:
            assert response.status == 405, method
    unknown = f"{url}/1-{'a' * 24}"
    for method, status in (("DELETE", 404), ("PATCH", 404), ("GET", 404), ("POST", 405)):
        async with http.request(method, unknown) as response:
            assert response.status == status, method
    async with http.get(f"{url}/9-{'a' * 24}") as response:
        assert response.status == 404


async def test_pages_of_allowed_origins_may_publish(url: str, http: aiohttp.ClientSession) -> None:
    studio = {"Origin": "https://studio.example"}
    preflight = studio | {"Access-Control-Request-Method": "POST"}
    async with http.options(url, headers=preflight) as response:
        assert response.status == 204
        assert response.headers["Access-Control-Allow-Origin"] == "https://studio.example"
        assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
        assert "Link" not in response.headers
    async with http.options(url) as response:
        assert response.headers["Accept-Post"] == "application/sdp"
        assert len(response.headers.getall("Link")) == 2
        assert "Access-Control-Allow-Origin" not in response.headers
    refused = await post(http, url, VP9_ONLY, **studio)
    assert refused.headers["Access-Control-Allow-Origin"] == "https://studio.example"
    assert "Location" in refused.headers["Access-Control-Expose-Headers"]
    evil = await post(http, url, VP9_ONLY, Origin="https://evil.example")
    assert evil.status == 403
    assert "Access-Control-Allow-Origin" not in evil.headers


async def test_the_location_is_absolute_behind_a_proxy(url: str) -> None:
    headers = {
        "X-Forwarded-Proto": "https, http",
        "X-Forwarded-Host": "video.example:8443",
        "X-Forwarded-Prefix": "/detect",
    }
    client = WebrtcClient(url, kind="whip", headers=headers)
    offer = await client.offer()
    response = await post(client.http, url, offer)
    assert response.headers["Location"].startswith("https://video.example:8443/detect/v1/whip/")
    own = f"{url}/{response.headers['Location'].rsplit('/', 1)[1]}"
    async with client.http.delete(own) as deleted:
        assert deleted.status == 200
    await client.close()


async def test_media_ports_come_from_the_range(url: str, media_ports: list[int]) -> None:
    async with WebrtcClient(url, kind="whip") as client:
        answer = client.peer.remoteDescription.sdp
        ports = [int(line.split()[5]) for line in answer.splitlines() if line.startswith("a=candidate")]
        assert ports
        assert set(ports) <= set(media_ports)


async def test_a_restarted_worker_says_that_its_sessions_are_lost(replica: Service, url: str) -> None:
    async with WebrtcClient(url, kind="whip") as client:
        number = int(client.location.rsplit("/", 1)[1].split("-")[0])
        owner = next(
            w
            for w in replica.workers
            if w.cmdline()[w.cmdline().index("streamer.server.worker") + 1] == str(number)
        )
        owner.kill()
        statuses = set()
        async with asyncio.timeout(60):
            while 404 not in statuses:
                with_timeout = aiohttp.ClientTimeout(total=3)
                try:
                    async with client.http.get(client.location, timeout=with_timeout) as response:
                        statuses.add(response.status)
                except (aiohttp.ClientError, TimeoutError):
                    pass
                await asyncio.sleep(0.1)
        assert statuses <= {404, 503}
