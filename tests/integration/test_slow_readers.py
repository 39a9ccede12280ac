"""Clients send frames and never read: the service limits what it buffers for them and serves others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator

import pytest

from tests.helpers.probe_rider import ProbeRider
from tests.helpers.service import PATIENT, Service
from tests.helpers.wire_client import WireClient, frame_message
from tests.unit.images import encode, scene

pytestmark = pytest.mark.alone

MIB = 1 << 20
SLOW_S = 1.0
#: Parameters that return as many boxes as possible.
EVERYTHING = {"conf_threshold": 0.0, "iou_threshold": 1.0, "max_detections": 1000}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    settings = PATIENT | {"SAMPLING": "False", "STREAM_SEND_TIMEOUT_S": "4"}
    with Service(settings, bundled=True) as running:
        yield running


def framed(payload: bytes, opcode: int) -> bytes:
    """Return a WebSocket frame, masked with zeros."""
    return bytes((0x80 | opcode, 0xFE)) + len(payload).to_bytes(2, "big") + bytes(4) + payload


def silent_client(service: Service, number: int) -> socket.socket:
    """Return a socket that has sent a hello with eight streams of mode `all` and reads nothing afterwards."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    raw.bind((f"127.0.1.{1 + number}", 0))
    raw.connect(("127.0.0.1", service.port))
    raw.sendall(
        b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert raw.recv(2048).startswith(b"HTTP/1.1 101")
    streams = [{"id": stream, "mode": "all"} for stream in range(8)]
    hello = {"type": "hello", "streams": streams, "params": EVERYTHING}
    raw.sendall(framed(json.dumps(hello).encode(), 1))
    return raw


async def test_clients_that_never_read_their_results_hold_little_memory(service: Service) -> None:
    (worker,) = service.workers
    image = encode(scene(64, 64))
    async with WireClient(f"{service.ws_url}/v1/stream") as polite:
        await polite.hello(params=EVERYTHING)
        await polite.send_frame(1, image)
        assert len((await polite.receive("result"))["boxes"]) > 200
        before = worker.memory_info().rss
        sockets = [await asyncio.to_thread(silent_client, service, number) for number in range(12)]
        highest = 0
        answered = 0
        with ProbeRider(service.port) as rider:
            for seq in range(1, 25):
                for raw in sockets:
                    for stream in range(8):
                        with contextlib.suppress(OSError):
                            raw.sendall(framed(frame_message(seq, image, stream=stream), 2))
                await polite.send_frame(seq + 1, image)
                answered += (await polite.receive("result", "drop", timeout_s=60))["type"] == "result"
                highest = max(highest, worker.memory_info().rss)
        for raw in sockets:
            raw.close()
    assert highest - before < 60 * MIB
    assert answered > 5
    rider.ride.check(at_least_s=SLOW_S)
