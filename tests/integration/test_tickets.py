"""Tickets over real sockets: each is valid once, at any worker and replica, with fewer rights than a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import aiohttp
import pytest
from websockets.exceptions import ConnectionClosed

from tests.deploy.release import Release
from tests.helpers.model_factory import null_model
from tests.helpers.service import PATIENT
from tests.helpers.webrtc_client import WebrtcClient
from tests.helpers.wire_client import WireClient

ANN, BOB = "dummy-key-ann", "dummy-key-bob"


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """Start two replicas with two workers each."""
    model = null_model(tmp_path_factory.mktemp("models") / "null.onnx")
    with Release(model, {"WORKERS": "2", "API_KEYS": f"{ANN},{BOB}"} | PATIENT) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


async def take(http: aiohttp.ClientSession, url: str, key: str = ANN) -> str:
    async with http.post(f"{url}/tickets", headers={"Authorization": f"Bearer {key}"}) as response:
        assert (response.status, response.headers["Cache-Control"]) == (201, "no-store")
        answer = await response.json()
        assert answer["expires_s"] == 60
        return str(answer["ticket"])


async def close_code(client: WireClient) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        await client.receive("welcome")
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


async def test_a_ticket_opens_one_stream_wherever_the_socket_comes_in(
    release: Release, http: aiohttp.ClientSession
) -> None:
    for number in range(8):  # often enough that most workers issue and accept tickets
        issuer, other = release[number % 2], release[(number // 2) % 2]
        ticket = await take(http, issuer.http_url)
        async with WireClient(f"{other.ws_url}/v1/stream") as client:
            assert await client.hello(token=ticket)
        for replica in (issuer, other):
            async with WireClient(f"{replica.ws_url}/v1/stream") as client:
                await client.send({"type": "hello", "token": ticket})
                assert await close_code(client) == 4401


async def test_of_many_that_show_one_ticket_at_once_one_gets_in(
    release: Release, http: aiohttp.ClientSession
) -> None:
    ticket = await take(http, release[0].http_url)

    async def enter(number: int) -> bool:
        async with WireClient(f"{release[number % 2].ws_url}/v1/stream") as client:
            await client.send({"type": "hello", "token": ticket})
            try:
                await client.receive("welcome")
            except ConnectionClosed:
                return False
            return True

    assert sum(await asyncio.gather(*(enter(number) for number in range(12)))) == 1


async def test_a_ticket_may_be_a_subprotocol(release: Release, http: aiohttp.ClientSession) -> None:
    ticket = await take(http, release[0].http_url)
    offered = f"detect.v1.json,ticket.{ticket}"
    async with WireClient(f"{release[1].ws_url}/v1/stream", subprotocol=offered) as client:
        assert client.socket.subprotocol == "detect.v1.json"
        assert await client.hello()
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(f"{release[1].http_url}/v1/stream", protocols=offered.split(","))
    assert refused.value.status == 401, "before the upgrade"


async def test_results_of_a_video_are_read_with_a_ticket_through_another_replica(
    release: Release, http: aiohttp.ClientSession
) -> None:
    async with WebrtcClient(f"{release[0].http_url}/v1/whip", kind="whip", key=ANN) as client:
        identifier = client.location.rsplit("/", 1)[1]
        url = f"{release[1].http_url}/v1/whip/{identifier}/results"
        for _ in range(3):
            offered = ["detect.v1.json", f"ticket.{await take(http, release[1].http_url)}"]
            async with http.ws_connect(url, protocols=offered) as socket:
                assert (await socket.receive_json(timeout=60))["type"] == "welcome"
        stranger = ["detect.v1.json", f"ticket.{await take(http, release[1].http_url, BOB)}"]
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect(url, protocols=stranger)
        assert refused.value.status == 404


async def test_a_session_is_resumed_with_another_ticket_of_the_same_key(
    release: Release, http: aiohttp.ClientSession
) -> None:
    for _ in range(4):
        async with WireClient(f"{release[0].ws_url}/v1/stream") as client:
            session = (await client.hello(token=await take(http, release[0].http_url)))["session"]
        resume = {"session": session}
        async with WireClient(f"{release[1].ws_url}/v1/stream") as client:
            ticket = await take(http, release[1].http_url, BOB)
            assert (await client.hello(token=ticket, resume=resume))["resumed"] is False
        async with WireClient(f"{release[1].ws_url}/v1/stream") as client:
            ticket = await take(http, release[1].http_url)
            assert (await client.hello(token=ticket, resume=resume))["resumed"] is True


async def test_a_ticket_is_no_key(release: Release, http: aiohttp.ClientSession) -> None:
    url = release[0].http_url
    for method, path in (("POST", "/tickets"), ("POST", "/v1/predict"), ("POST", "/reference/update")):
        headers = {"Authorization": f"Bearer {await take(http, url)}"}
        async with http.request(method, url + path, headers=headers) as response:
            assert response.status == 401
    async with http.post(f"{url}/tickets") as response:
        assert response.status == 401
    async with http.post(f"{url}/tickets/{await take(http, url)}x") as response:
        assert response.status == 404
    async with http.get(f"{url}/v1/stream?ticket=x") as response:
        assert response.status == 400


async def test_one_client_cannot_pile_up_tickets(release: Release, http: aiohttp.ClientSession) -> None:
    headers = {"Authorization": f"Bearer {BOB}"}
    statuses = []
    for _ in range(250):  # each of the two workers issues at most 100
        async with http.post(f"{release[0].http_url}/tickets", headers=headers) as response:
            statuses.append(response.status)
            if response.status == 429:
                assert int(response.headers["Retry-After"]) > 0
    assert statuses.count(201) <= 200
    assert set(statuses) == {201, 429}
    assert await take(http, release[0].http_url, ANN)
