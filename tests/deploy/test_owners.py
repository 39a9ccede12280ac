"""Tests that any replica and worker forwards a request to the session's owner, or answers without it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from streamer.client import DetectStream, Options, Phase, State
from streamer.config.replica_addresses import HOP_HEADER, REPLICA_HEADER, Address
from tests.deploy.release import Release
from tests.helpers.media import images
from tests.helpers.webrtc_client import WebrtcClient
from tests.helpers.wire_client import WireClient

KEY = "dummy-key"


@pytest.fixture(scope="module")
def release(null: Path) -> Iterator[Release]:
    """Run two replicas of two workers each, with API keys, which forwarded requests must carry along."""
    with Release(null, {"WORKERS": "2", "API_KEYS": KEY}) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    # Each request opens its own connection, so it may reach either worker.
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True), headers={"Authorization": f"Bearer {KEY}"}
    ) as session:
        yield session


async def first_event(response: aiohttp.ClientResponse, kind: str) -> None:
    async with asyncio.timeout(60):
        async for line in response.content:
            if line == f"event: {kind}\n".encode():
                return
    raise AssertionError(f"no event {kind!r}")


async def test_every_answer_names_its_replica(release: Release, http: aiohttp.ClientSession) -> None:
    for number, name in enumerate(release.names):
        for path in ("/health", "/v1/predict", "/nothing"):
            async with http.get(release[number].http_url + path) as response:
                assert response.headers[REPLICA_HEADER] == name


async def test_a_whip_session_is_reached_through_the_other_replica(
    release: Release, http: aiohttp.ClientSession
) -> None:
    before = release[1].metric("object_detection_requests_forwarded_total", to="replica")
    async with WebrtcClient(f"{release[0].http_url}/v1/whip", kind="whip", key=KEY) as client:
        identifier = client.location.rsplit("/", 1)[1]
        assert identifier.startswith(f"{release.names[0]}-")
        other = f"{release[1].http_url}/v1/whip/{identifier}"
        for _ in range(4):  # repeated, so that the requests pass through different workers of both replicas
            async with http.get(f"{other}/results") as events:
                assert events.content_type == "text/event-stream"
                assert events.headers[REPLICA_HEADER] == release.names[0]
                await first_event(events, "result")
        async with http.ws_connect(f"{other}/results", protocols=["detect.v1.json"]) as socket:
            assert (await socket.receive_json())["session"] == identifier
            await socket.send_json({"type": "ping", "t0": 1})
            async with asyncio.timeout(60):
                while (await socket.receive_json())["type"] != "pong":
                    pass
        sdpfrag = {"Content-Type": "application/trickle-ice-sdpfrag"}
        for etag, status in (('"another"', 412), (client.response_headers["ETag"], 204)):
            headers = sdpfrag | {"If-Match": etag}
            async with http.patch(other, data="a=end-of-candidates\r\n", headers=headers) as response:
                assert response.status == status, await response.text()
        async with http.patch(other, data=b"a" * (1 << 20), headers=sdpfrag) as response:
            assert response.status == 413
        async with http.get(other) as response:
            assert (await response.json())["state"] == "connected"
        async with http.get(other, headers={"Authorization": "Bearer wrong"}) as response:
            assert response.status == 401
        for _ in range(2):
            async with http.delete(other) as response:
                assert response.status == 200
        async with http.get(client.location) as response:
            assert (await response.json())["state"] == "ended"
    assert release[1].metric("object_detection_requests_forwarded_total", to="replica") >= before + 9


async def test_a_webrtc_session_is_trickled_and_ended_through_the_other_replica(
    release: Release, http: aiohttp.ClientSession
) -> None:
    async with WebrtcClient(f"{release[1].http_url}/v1/webrtc", key=KEY) as client:
        await client.wait_for("welcome")
        other = f"{release[0].http_url}/v1/webrtc/{client.answer['session']}"
        candidate = {"candidate": "candidate:1 1 udp 1 127.0.0.1 9 typ host", "sdpMid": "0"}
        async with http.patch(other, json={"candidate": candidate}) as response:
            assert response.status == 204, await response.text()
        async with http.delete(other) as response:
            assert response.status == 204
        assert (await client.wait_for("bye"))[0]["ending"] == "closed"


async def test_ids_that_name_nobody_are_refused(release: Release, http: aiohttp.ClientSession) -> None:
    token = "A" * 24
    unlisted = Address("127.0.0.1", 9).name
    for identifier in (f"{unlisted}-0-{token}", f"0-{token}", f"{release.names[1]}-7-{token}", "x", "0" * 60):
        async with http.get(f"{release[0].http_url}/v1/whip/{identifier}") as response:
            # A request that was passed on would be 410, 502 or 504.
            assert (response.status, response.content_type) == (404, "application/problem+json"), identifier


async def test_what_was_passed_on_once_goes_no_further(release: Release, http: aiohttp.ClientSession) -> None:
    identifier = f"{release.names[1]}-0-{'A' * 24}"
    before = release[0].metric("object_detection_requests_forwarded_total", to="replica")
    headers = {HOP_HEADER: release.names[1]}
    async with http.get(f"{release[0].http_url}/v1/whip/{identifier}", headers=headers) as response:
        assert (response.status, response.headers[REPLICA_HEADER]) == (404, release.names[0])
    assert release[0].metric("object_detection_requests_forwarded_total", to="replica") == before


@pytest.mark.parametrize("home", [0, 1])
async def test_a_websocket_session_is_resumed_by_any_replica(release: Release, home: int) -> None:
    image = images(1)[0]
    headers = {"Authorization": f"Bearer {KEY}"}
    async with WireClient(f"{release[home].ws_url}/v1/stream", headers=headers) as client:
        welcome = await client.hello(params={"conf_threshold": 0.61, "track": True})
        for seq in (1, 2, 3):
            await client.send_frame(seq, image)
        await client.until_outcomes([1, 2, 3])
        client.socket.transport.abort()
    session = welcome["session"]
    for number in (1 - home, home, 1 - home):
        async with WireClient(f"{release[number].ws_url}/v1/stream", headers=headers) as client:
            welcome = await client.hello(resume={"session": session})
            assert welcome["resumed"] is True
            assert (welcome["params"]["conf_threshold"], welcome["params"]["track"]) == (0.61, True)
            assert welcome["session"].startswith(release.names[number])
            session = welcome["session"]
            await client.send_frame(3, image)  # the resumed session has already seen seq 3: an error
            assert (await client.receive("error", "result"))["type"] == "error"
            client.socket.transport.abort()


async def test_a_session_that_a_newer_connection_takes_ends_the_older_one(release: Release) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        WireClient(f"{release[0].ws_url}/v1/stream", headers=headers) as older,
        WireClient(f"{release[1].ws_url}/v1/stream", headers=headers) as newer,
    ):
        session = (await older.hello())["session"]
        assert (await newer.hello(resume={"session": session}))["resumed"] is True
        assert (await older.closed())[0] == 4409
        async with WireClient(f"{release[0].ws_url}/v1/stream", headers=headers) as late:
            assert (await late.hello(resume={"session": session}))["resumed"] is False


async def test_a_session_is_handed_to_nobody_without_a_key(release: Release) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with WireClient(f"{release[0].ws_url}/v1/stream", headers=headers) as client:
        session = (await client.hello())["session"]
        async with aiohttp.ClientSession() as stranger:
            for number in (0, 1):
                url = f"{release[number].http_url}/v1/stream/{session}"
                async with stranger.post(url) as response:
                    assert response.status == 401
        await client.send({"type": "ping", "t0": 1})
        await client.receive("pong")  # the session still works


async def test_a_dead_owner_is_answered_for_at_once(null: Path) -> None:
    image = images(1)[0]
    states: list[State] = []
    with Release(null, {}) as release:
        async with (
            aiohttp.ClientSession() as http,
            WebrtcClient(f"{release[0].http_url}/v1/whip", kind="whip") as whip,
            DetectStream(
                release[0].ws_url, options=Options(give_up_after_s=0), on_state=states.append
            ) as stream,
        ):
            stream.offer(image)
            session = stream._flow.session
            other = f"{release[1].http_url}/v1/whip/{whip.location.rsplit('/', 1)[1]}"
            release[0].signal(signal.SIGSTOP)
            for worker in release[0].workers:
                worker.suspend()
            async with http.get(other) as response:  # the owner hangs: the wait is bounded too
                assert (response.status, (await response.json())["code"]) == (504, "owner_silent")
            async with WireClient(f"{release[1].ws_url}/v1/stream") as client:
                assert (await client.hello(resume={"session": session}))["resumed"] is False
            await asyncio.to_thread(release.end, 0, at_once=True)
            for method in ("GET", "DELETE", "PATCH"):
                async with http.request(method, other) as response:
                    assert (response.status, (await response.json())["code"]) == (410, "replica_gone")
            async with WireClient(f"{release[1].ws_url}/v1/stream") as client:
                assert (await client.hello(resume={"session": session}))["resumed"] is False
    assert states[-1].phase is Phase.CLOSED
