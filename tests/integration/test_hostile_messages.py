"""Sends small messages that are costly to process: memory stays bounded and others are served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from streamer.websocket.handshake import HELLO_MAX_BYTES, MOST_PER_ADDRESS
from tests.helpers.model_factory import null_model
from tests.helpers.probe_rider import ProbeRider
from tests.helpers.service import PATIENT, Service
from tests.helpers.waiting import wait_for
from tests.helpers.wire_client import WireClient

pytestmark = pytest.mark.alone

MIB = 1 << 20
#: Bound for the slowest probe in seconds. A blocked event loop takes several seconds, a busy machine less.
SLOW_S = 1.0
KEY = {"Authorization": "Bearer test-key"}
#: A long list under a long key: if the parser built a path for each value, the paths would take gigabytes.
BOMB: dict[str, Any] = {"type": "hello", "🎥" * 32_500: list(range(16_300))}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    model = null_model(tmp_path_factory.mktemp("models") / "null.onnx")
    settings = {"MODEL_V1_PATH": str(model), "API_KEYS": "test-key", "SAMPLING": "False"}
    settings |= PATIENT
    with Service(settings) as running:
        yield running


def memory_bytes(service: Service) -> int:
    (worker,) = service.workers
    return int(worker.memory_info().rss)


@pytest.mark.parametrize("encode", [json.dumps, lambda m: json.dumps(m, ensure_ascii=False), msgpack.packb])
async def test_a_hello_that_would_be_gigabytes_of_paths_is_refused_unread(
    service: Service, encode: Any
) -> None:
    message = encode(BOMB)
    before = memory_bytes(service)
    with ProbeRider(service.port) as rider:
        for _ in range(21):
            async with connect(f"{service.ws_url}/v1/stream", compression=None) as client:
                await client.send(message)
                with pytest.raises(ConnectionClosed) as caught:
                    await client.recv()
                assert caught.value.rcvd is not None
                assert caught.value.rcvd.code == 4429
    assert memory_bytes(service) - before < 20 * MIB
    rider.ride.check(at_least_s=SLOW_S)


@pytest.mark.parametrize("extra", [0, 1])
async def test_hello_has_4_kib_without_a_key_counted_in_bytes(service: Service, extra: int) -> None:
    hello = {"type": "hello", "token": "test-key", "pad": ""}
    room = HELLO_MAX_BYTES - len(json.dumps(hello)) + extra
    hello["pad"] = "é" * (room // 2) + "x" * (room % 2)
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.socket.send(json.dumps(hello, ensure_ascii=False))
        if extra:
            code, reason = await client.closed()
            assert (code, "at most 4096" in reason) == (4429, True)
        else:
            await client.receive("welcome")


async def test_who_has_shown_a_key_may_send_a_long_hello(service: Service) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream", headers=KEY) as client:
        assert (await client.hello(pad="x" * 60_000))["type"] == "welcome"
        error = await client.receive("error")
        assert (error["code"], error["field"]) == ("unknown_field", "pad")
    async with WireClient(f"{service.ws_url}/v1/stream", headers=KEY) as client:
        await client.socket.send(json.dumps({"type": "hello", "pad": "x" * 66_000}))
        assert (await client.closed())[0] == 4429


async def test_frames_that_follow_hello_at_once_are_not_lost(service: Service) -> None:
    """Before the welcome arrives, a client may already send messages larger than the limit for a hello."""
    async with WireClient(f"{service.ws_url}/v1/stream", headers=KEY) as client:
        text = json.dumps({"type": "frame", "seq": 1, "data": "A" * 500_000})
        await client.socket.send(json.dumps({"type": "hello"}))
        await client.socket.send(text)
        await client.receive("welcome")
        assert (await client.receive("drop"))["reason"] == "decode_error"


def upgraded(service: Service) -> socket.socket:
    """Return a socket that is upgraded and has sent no hello; retry while all places are taken (503)."""
    for _ in range(1200):
        raw = ask_upgrade(service)
        answer = raw.recv(4096)
        if answer.startswith(b"HTTP/1.1 101"):
            return raw
        assert answer.startswith(b"HTTP/1.1 503"), answer
        raw.close()
        time.sleep(0.05)
    raise AssertionError("no place before the hello became free")


def ask_upgrade(service: Service) -> socket.socket:
    raw = socket.create_connection(("127.0.0.1", service.port))
    raw.sendall(
        b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    return raw


def begin_message(length: int) -> bytes:
    """Return the header of a masked binary message of ``length`` bytes."""
    return b"\x82\xff" + length.to_bytes(8, "big") + bytes(4)


async def test_unfinished_messages_without_hello_are_cut_off_and_not_kept(service: Service) -> None:
    def attack() -> None:
        sockets = [upgraded(service) for _ in range(MOST_PER_ADDRESS - 4)]
        for raw in sockets:
            raw.settimeout(5)
            try:
                raw.sendall(begin_message(2 * MIB - 1) + bytes(2 * MIB - 100))
            except OSError:
                continue  # the server closed the connection during the transfer
        for raw in sockets:
            raw.close()

    before = memory_bytes(service)
    with ProbeRider(service.port) as rider:
        sending = asyncio.create_task(asyncio.to_thread(attack))
        highest = 0
        while not sending.done():
            highest = max(highest, memory_bytes(service))
            await asyncio.sleep(0.01)
        await sending
    assert highest - before < 60 * MIB
    rider.ride.check(at_least_s=SLOW_S)


async def test_unfinished_messages_of_greeted_clients_share_the_byte_budget(service: Service) -> None:
    def attack() -> list[socket.socket]:
        sockets = []
        for _ in range(60):
            raw = upgraded(service)
            hello = json.dumps({"type": "hello", "token": "test-key"}).encode()
            raw.sendall(bytes((0x81, 0x80 | len(hello))) + bytes(4) + hello)
            assert b"welcome" in raw.recv(4096)
            raw.settimeout(5)
            with contextlib.suppress(OSError):
                raw.sendall(begin_message(2 * MIB - 1) + bytes(2 * MIB - 100))
            sockets.append(raw)
        return sockets

    before = memory_bytes(service)
    sockets = await asyncio.to_thread(attack)
    assert memory_bytes(service) - before < 80 * MIB

    def refused() -> bool:
        return service.metric("object_detection_buffer_refusals_total", kind="messages") > 0

    await asyncio.to_thread(wait_for, refused, "messages are refused")
    for raw in sockets:
        raw.close()

    def given_back() -> bool:
        return service.metric("object_detection_buffered_bytes") == 0

    await asyncio.to_thread(wait_for, given_back, "bytes of unfinished messages are given back")


async def test_silent_sockets_have_a_bounded_number_of_places(service: Service) -> None:
    before = memory_bytes(service)
    sockets = [await asyncio.to_thread(upgraded, service) for _ in range(MOST_PER_ADDRESS)]
    try:
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"{service.ws_url}/v1/stream")
        assert caught.value.response.status_code == 503
        assert "Retry-After" in caught.value.response.headers
        assert service.get("/livez")[0] == 200
        assert memory_bytes(service) - before < MOST_PER_ADDRESS * 256 << 10
    finally:
        for raw in sockets:
            raw.close()

    async def enters() -> bool:
        try:
            async with WireClient(f"{service.ws_url}/v1/stream", headers=KEY) as client:
                return bool((await client.hello())["type"] == "welcome")
        except InvalidStatus:
            return False

    for _ in range(1200):
        if await enters():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the places were not given back")


async def test_large_control_messages_of_a_known_client_do_not_hold_the_loop(service: Service) -> None:
    nested = "[" + ",".join(["[]"] * 20_000) + "]"
    packed = b"\x82\xa4type\xa4ping\xa1x\xdc\xf0\x00" + b"\x90" * 0xF000
    with ProbeRider(service.port) as rider:
        for message in ('{"type": "ping", "x": ' + nested + "}", packed):
            async with WireClient(f"{service.ws_url}/v1/stream", headers=KEY) as client:
                await client.hello()
                for _ in range(40):
                    await client.socket.send(message)
                for _ in range(40):  # about the message, or about too many messages
                    await client.receive("error")
    rider.ride.check(at_least_s=SLOW_S)
