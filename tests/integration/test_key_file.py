"""The key file of a running service: scopes, rotation without a restart, and the audit log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from streamer.access.key_ring import digest_of
from tests.helpers.model_factory import null_model
from tests.helpers.service import PATIENT, Service
from tests.helpers.waiting import wait_for
from tests.helpers.webrtc_client import WebrtcClient
from tests.helpers.wire_client import WireClient

KEYS = {"watcher": "predict", "camera": "stream", "boss": "admin", "gone": "stream"}


def key_of(name: str) -> str:
    return f"test-key-of-{name}"


def entries(*names: str, without: str = "") -> str:
    return "".join(
        f'[[keys]]\nname = "{name}"\nsha256 = "{digest_of(key_of(name))}"\nscopes = ["{scope}"]\n'
        for name, scope in KEYS.items()
        if name != without and (not names or name in names)
    )


def put(file: Path, text: str) -> None:
    """Replace the file atomically, as tools and mounted Secrets do."""
    beside = file.with_suffix(".new")
    beside.write_text(text)
    beside.replace(file)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    path.write_text(entries())
    return path


@pytest.fixture(scope="module")
def service(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    model = null_model(tmp_path_factory.mktemp("models") / "null.onnx")
    settings = {"MODEL_V1_PATH": str(model), "API_KEYS_FILE": str(file), "WORKERS": "2"}
    with Service(settings | PATIENT) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


async def status(
    http: aiohttp.ClientSession, service: Service, method: str, path: str, name: str, kind: str = ""
) -> int:
    headers = {"Authorization": f"Bearer {key_of(name)}"} | ({"Content-Type": kind} if kind else {})
    async with http.request(method, service.http_url + path, headers=headers, data=b"x") as response:
        return response.status


@pytest.mark.parametrize(
    ("method", "path", "kind", "scope"),
    [
        ("POST", "/v1/predict", "image/jpeg", "predict"),
        ("POST", "/v1/webrtc", "application/json", "stream"),
        ("POST", "/v1/whip", "application/sdp", "stream"),
        ("DELETE", "/v1/whip/0-aaaaaaaaaaaaaaaaaaaaaaaa", "", "stream"),
        ("POST", "/v1/stream/0-aaaaaaaaaaaaaaaaaaaaaaaa", "", "stream"),
        ("POST", "/reference/update", "text/plain", "admin"),
        ("GET", "/drift/report", "", "admin"),
    ],
)
async def test_a_key_is_good_for_its_scopes_and_nothing_else(
    service: Service, http: aiohttp.ClientSession, method: str, path: str, kind: str, scope: str
) -> None:
    for name, granted in KEYS.items():
        found = await status(http, service, method, path, name, kind)
        assert (found == 403) is (granted != scope), (name, found)
        assert found != 401
    assert await status(http, service, method, path, "nobody", kind) == 401


async def test_a_socket_wants_the_scope_too(service: Service, http: aiohttp.ClientSession) -> None:
    url = f"{service.ws_url}/v1/stream"
    async with WireClient(url) as client:
        assert await client.hello(token=key_of("camera"))
    async with WireClient(url) as client:
        await client.send({"type": "hello", "token": key_of("watcher")})
        with pytest.raises(ConnectionClosed) as closed:
            await client.receive("welcome")
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, "scope" in closed.value.rcvd.reason) == (4401, True)
    headers = {"Authorization": f"Bearer {key_of('watcher')}"}
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect(f"{service.http_url}/v1/stream", headers=headers)
    assert refused.value.status == 403


async def test_actions_of_administrators_and_refusals_are_written_down(
    service: Service, http: aiohttp.ClientSession
) -> None:
    for name in ("boss", "watcher", "nobody"):
        await status(http, service, "POST", "/reference/update", name, "text/plain")

    def lines() -> list[dict[str, object]]:
        found = [json.loads(line) for line in service.log.splitlines() if '"streamer.audit' in line]
        return [line for line in found if line["action"] == "POST /reference/update"]

    expected = {("boss", 415), ("watcher", 403), ("addr:127.0.0.1", 401)}
    wait_for(lambda: expected <= {(line["key"], line["status"]) for line in lines()}, "audit lines")
    assert all(line["request_id"] for line in lines())
    assert "test-key-of" not in service.log


async def test_an_action_is_written_down_though_nobody_waits_for_its_answer(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    head = f"POST /reference/update HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key_of('boss')}\r\n"
    rest = "X-Request-Id: left-early\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"
    writer.write(f"{head}{rest}Expect: 100-continue\r\n\r\n".encode())
    async with asyncio.timeout(60):
        assert (await reader.readline()).startswith(b"HTTP/1.1 100 ")  # the request is being handled
    writer.close()
    await writer.wait_closed()

    def line() -> str:
        return next((line for line in service.log.splitlines() if "left-early" in line), "")

    wait_for(line, "the audit line", timeout_s=60)
    told = json.loads(line())
    assert (told["key"], told["action"], told["status"]) == ("boss", "POST /reference/update", 0)


async def test_keys_are_rotated_while_streams_run(
    service: Service, http: aiohttp.ClientSession, file: Path
) -> None:
    url = f"{service.ws_url}/v1/stream"
    async with (
        WireClient(url) as stays,
        WireClient(url) as leaves,
        WebrtcClient(f"{service.http_url}/v1/webrtc", key=key_of("gone")) as video,
    ):
        await stays.hello(token=key_of("camera"))
        await leaves.hello(token=key_of("gone"))
        await video.wait_for("welcome")
        put(file, entries(without="gone"))
        with pytest.raises(ConnectionClosed) as closed:
            await leaves.receive("never", timeout_s=60)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401
        (bye,) = await video.wait_for("bye", timeout_s=60)
        assert "withdrawn" in bye["reason"]
        await stays.send({"type": "ping", "t0": 1})
        await stays.receive("pong")
        # The name gets another key. The service disconnects clients with the old key, which may be stolen.
        put(file, entries(without="gone").replace(digest_of(key_of("camera")), digest_of("another-key")))
        with pytest.raises(ConnectionClosed) as closed:
            await stays.receive("never", timeout_s=60)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401
        put(file, entries(without="gone"))
    async with asyncio.timeout(60):
        # Either of the two workers may answer, and each reads the file by itself.
        refusals = 0
        while refusals < 6:
            gone = await status(http, service, "POST", "/v1/webrtc", "gone", "application/json")
            refusals = refusals + 1 if gone in (401, 429) else 0
            await asyncio.sleep(0.05)


def has_successor(service: Service, victim: psutil.Process) -> bool:
    workers = service.workers
    return len(workers) == 2 and victim not in workers


async def test_a_broken_file_changes_nothing_and_is_told(
    service: Service, http: aiohttp.ClientSession, file: Path
) -> None:
    assert service.get_json("/health")["access"] == {"keys": "required", "keys_file": "ok"}
    put(file, "[[keys]]\nname = ")
    try:
        async with asyncio.timeout(60):
            # Either of the two workers may answer.
            while service.get_json("/health")["access"]["keys_file"] != "failed":
                await asyncio.sleep(0.1)
        assert service.get("/health")[0] == 200
        for _ in range(4):
            assert await status(http, service, "POST", "/v1/predict", "watcher", "image/jpeg") == 415
        wait_for(lambda: "API_KEYS_FILE is neither JSON nor TOML" in service.log)
        victim = service.workers[0]
        victim.kill()
        wait_for(lambda: has_successor(service, victim), "the worker's successor")
        for _ in range(6):
            assert await status(http, service, "POST", "/v1/predict", "watcher", "image/jpeg") == 415
    finally:
        put(file, entries())
    async with asyncio.timeout(60):
        while service.get_json("/health")["access"]["keys_file"] != "ok":
            await asyncio.sleep(0.1)
