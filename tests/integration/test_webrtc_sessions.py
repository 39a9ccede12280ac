"""Offers to ``/v1/webrtc`` that are refused, and the limits and ends of sessions."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from tests.helpers.service import PATIENT, Service
from tests.helpers.waiting import wait_for
from tests.helpers.webrtc_client import WebrtcClient

#: A limit of three sessions, and time-outs short enough for tests and long enough for a busy machine.
LIMITS = {"WEBRTC_CONNECT_TIMEOUT_S": "6", "WEBRTC_MEDIA_TIMEOUT_S": "5", "WEBRTC_SESSIONS_MAX": "3"}


@pytest.fixture(scope="module")
def endpoint(service: Service) -> str:
    return f"{service.http_url}/v1/webrtc"


@pytest.fixture(scope="module")
def strict() -> Iterator[Service]:
    """Start a service with a key and the settings in LIMITS."""
    variables = PATIENT | {"API_KEYS": "dummy-key"}
    with Service(variables | LIMITS) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ([], 400, "expected a map"),
        ({"type": "answer", "sdp": "v=0"}, 400, "`type`"),
        ({"type": "offer"}, 400, "`sdp`"),
        ({"type": "offer", "sdp": "v=1"}, 400, "v=0"),
        ({"type": "offer", "sdp": "v=0", "annotate": "yes"}, 400, "`annotate`"),
        ({"type": "offer", "sdp": "v=0", "params": {"conf_threshold": 7}}, 400, "params.conf_threshold"),
        ({"type": "offer", "sdp": "x" * 140_000}, 413, "131072"),
    ],
)
async def test_wrong_offers_are_problems(
    endpoint: str, http: aiohttp.ClientSession, body: Any, status: int, words: str
) -> None:
    async with http.post(endpoint, json=body) as response:
        text = await response.text()
        assert (response.status, response.content_type) == (status, "application/problem+json")
        assert words in text


async def test_other_refusals_are_problems_too(
    endpoint: str, http: aiohttp.ClientSession, service: Service
) -> None:
    async with http.post(endpoint, data=b"v=0") as response:
        assert response.status == 415
    async with http.post(endpoint, data=b"{", headers={"Content-Type": "application/json"}) as response:
        assert response.status == 400
    async with http.post(f"{service.http_url}/v7/webrtc", json={}) as response:
        assert response.status == 404
    async with http.post(endpoint, json={}, headers={"Origin": "https://evil.example"}) as response:
        assert response.status == 403
        assert "Access-Control-Allow-Origin" not in response.headers
    async with http.put(endpoint) as response:
        assert response.status == 405
    async with http.get(f"{endpoint}/0-aaaaaaaaaaaaaaaaaaaaaaaa") as response:
        assert response.status == 404
    async with http.get(endpoint) as response:
        body = await response.json()
        assert (response.status, body["ice_servers"]) == (200, [])


async def test_every_request_wants_the_key(strict: Service, http: aiohttp.ClientSession) -> None:
    url = f"{strict.http_url}/v1/webrtc"
    async with WebrtcClient(url, key="dummy-key") as client:
        await client.wait_for("result")
        for method, path in (
            ("POST", url),
            ("GET", url),
            ("GET", client.location),
            ("PATCH", client.location),
            ("DELETE", client.location),
            ("GET", f"{client.location}/results"),
        ):
            async with http.request(method, path, json={}) as response:
                assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer"), method
        assert (await client.state())["state"] == "connected"


async def test_who_never_connects_is_ended_and_told_why(strict: Service) -> None:
    before = strict.metric("object_detection_webrtc_ended_total", reason="connect_timeout")

    def nowhere(sdp: str) -> str:
        return "".join(f"{line}\r\n" for line in sdp.splitlines() if not line.startswith("a=candidate"))

    client = WebrtcClient(f"{strict.http_url}/v1/webrtc", key="dummy-key", change_answer=nowhere)
    async with client:
        await client.peer.close()
        reason = await client.wait_ended(60)
    assert reason["code"] == "connect_timeout"
    assert "within 6 s" in reason["text"]
    ended = "object_detection_webrtc_ended_total"
    await asyncio.to_thread(
        wait_for, lambda: strict.metric(ended, reason="connect_timeout") > before, "it is counted"
    )


async def test_a_certificate_that_was_not_offered_ends_the_session(strict: Service) -> None:
    class Impostor(WebrtcClient):
        async def offer(self) -> str:
            sdp = await super().offer()
            return re.sub(r"(a=fingerprint:sha-\d+ )([0-9A-F]{2})", r"\g<1>00", sdp)

    async with Impostor(f"{strict.http_url}/v1/webrtc", key="dummy-key") as client:
        reason = await client.wait_ended(60)
    assert reason["code"] == "dtls_failed"
    assert "certificate does not match the offer" in reason["text"]


async def test_a_stream_without_video_is_ended(strict: Service) -> None:
    async with WebrtcClient(f"{strict.http_url}/v1/webrtc", key="dummy-key") as client:
        await client.wait_for("result")
        client.track.running.clear()
        (bye,) = await client.wait_for("bye", timeout_s=60)
        assert bye["ending"] == "no_media"
        assert "no video for 5 s" in bye["reason"]


async def test_who_goes_away_without_a_word_is_noticed(strict: Service) -> None:
    client = WebrtcClient(f"{strict.http_url}/v1/webrtc", key="dummy-key")
    async with client:
        await client.wait_for("result")
        await client.peer.close()
        reason = await client.wait_ended(60)
    assert reason["code"] in ("peer_gone", "closed", "no_media")


async def test_sessions_are_limited(strict: Service) -> None:
    clients = [WebrtcClient(f"{strict.http_url}/v1/webrtc", key="dummy-key") for _ in range(4)]
    async with asyncio.timeout(60):
        while strict.metric("object_detection_webrtc_sessions"):
            await asyncio.sleep(0.1)
    for client in clients[:3]:
        await client.__aenter__()
    offer = await clients[3].offer()
    async with clients[3].http.post(clients[3].endpoint, json={"type": "offer", "sdp": offer}) as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "5")
        assert "3 WebRTC sessions" in await response.text()
    for client in clients:
        if client.location:
            await client.http.delete(client.location)
        await client.close()


async def test_a_server_that_shuts_down_says_so_and_ends_in_order() -> None:
    with Service(PATIENT) as service:
        async with WebrtcClient(f"{service.http_url}/v1/webrtc") as client:
            await client.wait_for("result", 2)
            service.signal(signal.SIGTERM)
            (bye,) = await client.wait_for("bye")
            assert (bye["ending"], bye["code"]) == ("shutdown", 1012)
        assert await asyncio.to_thread(service.wait) == 0
        assert "Traceback" not in service.log
