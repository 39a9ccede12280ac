"""S9: a client that sends endless message fragments loses its data channels, and blocks nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiortc.rtcsctptransport import DataChunk

from tests.helpers.model_factory import null_model
from tests.helpers.probe_rider import ProbeRider
from tests.helpers.service import PATIENT, Service
from tests.helpers.webrtc_client import WebrtcClient

pytestmark = pytest.mark.alone

PARTS = 6000
FIRST, LAST = 2, 1
#: Limit for the slowest answer to a probe, seconds. Before fragments had a budget, 6,000 of them blocked the
#: event loop for seconds, longer and longer.
SLOW_S = 1.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    model = null_model(tmp_path_factory.mktemp("models") / "null.onnx")
    settings = PATIENT | {"MODEL_V1_PATH": str(model), "SAMPLING": "False"}
    with Service(settings | {"WEBRTC_PRIVATE_CANDIDATES": "True"}) as running:
        yield running


def part(association: Any, number: int, **fields: int) -> DataChunk:
    chunk = DataChunk()
    chunk.flags = fields.get("flags", FIRST if number == 0 else 0)
    chunk.tsn = association._local_tsn
    chunk.stream_id = fields.get("stream", 1)
    chunk.stream_seq = 0
    chunk.protocol = 51
    chunk.user_data = bytes(fields.get("size", 1000))
    association._local_tsn = (association._local_tsn + fields.get("step", 1)) & 0xFFFFFFFF
    return chunk


ATTACKS: dict[str, Callable[[Any, int], DataChunk]] = {
    "a message without an end": lambda association, number: part(association, number),
    "one of tiny parts": lambda association, number: part(association, number, size=1),
    "with gaps between": lambda association, number: part(association, number, size=1, step=2),
    "a stream for each part": lambda association, number: part(
        association, 0, size=1, stream=number % 60_000, flags=FIRST
    ),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_parts_without_an_end_close_the_channels(service: Service, name: str) -> None:
    (worker,) = service.workers
    async with WebrtcClient(f"{service.http_url}/v1/webrtc") as client:
        await client.wait_for("result")
        before = worker.memory_info().rss
        association: Any = client.peer.sctp
        with ProbeRider(service.port) as rider:
            for number in range(PARTS):
                if association.state != "connected":
                    break
                await association._send_chunk(ATTACKS[name](association, number))
                if number % 20 == 0:
                    await asyncio.sleep(0.002)
            async with asyncio.timeout(60):
                while association.state == "connected":
                    await asyncio.sleep(0.05)
        assert worker.memory_info().rss - before < 40 << 20
        rider.ride.check(at_least_s=SLOW_S)
    async with WebrtcClient(f"{service.http_url}/v1/webrtc") as another:
        await another.wait_for("result")
