"""Tests fairness between greedy and polite clients, which use different addresses in 127.0.0.0/8."""

from __future__ import annotations

import asyncio
import contextlib
import io
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import cv2
import numpy as np
import pytest

from tests.helpers.load import End, StreamLoad
from tests.helpers.probe_rider import ProbeRider
from tests.helpers.service import Service
from tests.helpers.waiting import wait_for
from tests.unit.images import encode, scene

pytestmark = pytest.mark.alone

#: These do not limit performance; they show that a polite client need not wait for all images of others.
FACTOR, SLACK_S = 6.0, 0.25
POLITE, GREEDY = "127.0.0.77", "127.0.0.66"
SMALL = encode(scene(320, 240))


@asynccontextmanager
async def client(address: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield an HTTP session whose connections come from ``address``."""
    connector = aiohttp.TCPConnector(limit=0, local_addr=(address, 0))
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=120)
    ) as session:
        yield session


async def post(session: aiohttp.ClientSession, url: str, image: bytes) -> tuple[int, str, float]:
    """POST an image; return the status, `Retry-After` (empty if absent) and the time in seconds."""
    begun = time.monotonic()
    async with session.post(url, data=io.BytesIO(image), headers={"Content-Type": "image/jpeg"}) as answer:
        await answer.read()
        return answer.status, answer.headers.get("Retry-After", ""), time.monotonic() - begun


@asynccontextmanager
async def riding(service: Service) -> AsyncIterator[ProbeRider]:
    """Probe the service, and measure how much the machine slows computations down."""
    rider = ProbeRider(service.port)
    await asyncio.to_thread(rider.__enter__)
    try:
        yield rider
    finally:
        await asyncio.to_thread(rider.__exit__, None, None, None)


def outcomes(service: Service) -> tuple[float, float]:
    """Return the number of posted images received, and the sum of their outcomes and of those in flight."""
    names = ("inferred_total", "dropped_total", "failed_total", "in_flight")
    received = service.metric("object_detection_frames_received_total", transport="http")
    return received, sum(
        service.metric(f"object_detection_frames_{name}", transport="http") for name in names
    )


async def until_accounted(service: Service, received: int | None = None) -> None:
    """Wait until every posted image received has an outcome, and there are ``received`` of them, if given."""

    def accounted() -> bool:
        number, known = outcomes(service)
        return number == known and received in (None, number)

    await asyncio.to_thread(wait_for, accounted, "each image has its outcome")


@pytest.fixture(scope="module")
def shared_service(null_path: Path) -> Iterator[Service]:
    with Service({"MODEL_V1_PATH": str(null_path), "STREAM_MIN_FPS": "0"}) as running:
        yield running


@pytest.fixture(scope="module")
def expensive() -> bytes:
    """Return a valid progressive JPEG of 13 megapixels, which takes as long as hundreds of small images."""
    noise = np.random.default_rng(0).integers(0, 255, (552, 828, 3), dtype=np.uint8)
    large = cv2.resize(noise, (4416, 2944), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    return encode(large, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 40, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)


async def test_expensive_posts_of_many_clients_do_not_hold_up_a_polite_one(
    shared_service: Service, expensive: bytes
) -> None:
    url = f"{shared_service.http_url}/v1/predict"
    seen: Counter[int] = Counter()
    without_retry: list[int] = []
    until = End.after(6.0)

    async def be_greedy(address: str) -> None:
        async with client(address) as session:
            while not until.passed:
                status, retry, _ = await post(session, url, expensive)
                seen[status] += 1
                if status in (429, 503):
                    without_retry.extend([status] if not retry else [])
                    await asyncio.sleep(0.1)

    async with client(POLITE) as session, riding(shared_service) as rider:
        alone = [(await post(session, url, SMALL))[2] for _ in range(20)]
        _, _, expensive_s = await post(session, url, expensive)
        until.at = time.monotonic() + 6.0
        greedy = [asyncio.create_task(be_greedy(f"127.0.1.{number}")) for number in range(1, 11)]
        await asyncio.sleep(1.0)
        beside: list[float] = []
        stream = StreamLoad(f"{shared_service.http_url}/v1/stream", [SMALL], fps=5.0)
        async with client("127.0.0.78") as streaming:
            streamed = asyncio.create_task(stream.run(streaming, until))
            while not until.passed:
                status, _, took_s = await post(session, url, SMALL)
                assert status == 200
                beside.append(took_s)
                await asyncio.sleep(0.1)
            tally = await streamed
        await asyncio.gather(*greedy)
    if rider.ride.is_quiet:
        assert statistics.median(beside) <= FACTOR * statistics.median(alone) + SLACK_S
        assert max(beside) < max(2.0, 3 * expensive_s), "an expensive image takes that long; there are ten"
        assert tally.results >= 0.7 * tally.sent
    assert seen[429] + seen[503] > 0
    assert without_retry == []
    await until_accounted(shared_service)


async def test_a_polite_connection_of_the_same_address_is_not_held_up_either(
    shared_service: Service, expensive: bytes
) -> None:
    url = f"{shared_service.http_url}/v1/predict"
    async with client(GREEDY) as session, riding(shared_service) as rider:
        await post(session, url, SMALL)
        _, _, expensive_s = await post(session, url, expensive)
        greedy = [asyncio.create_task(post(session, url, expensive)) for _ in range(10)]
        await asyncio.sleep(0.2)
        times = [await post(session, url, SMALL) for _ in range(3)]
        await asyncio.gather(*greedy)
    answered_s = [took_s for status, _, took_s in times if status == 200]
    assert answered_s
    assert min(answered_s) < max(1.0, 2 * expensive_s) or not rider.ride.is_quiet


async def test_one_client_with_many_streams_leaves_another_client_its_share(null_path: Path) -> None:
    with Service({"MODEL_V1_PATH": str(null_path), "STREAM_MIN_FPS": "0", "INFERENCE_LANES": "1"}) as service:
        url = f"{service.http_url}/v1/stream"
        async with client(GREEDY) as greedy, client(POLITE) as polite, riding(service) as rider:
            until = End.after(4.0)
            flood = [StreamLoad(url, [SMALL], fps=100.0).run(greedy, until) for _ in range(20)]
            modest = StreamLoad(url, [SMALL], fps=5.0).run(polite, until)
            tally, *others = await asyncio.gather(modest, *flood)
        assert tally.results >= 0.8 * tally.sent or not rider.ride.is_quiet
        assert sum(other.results for other in others) > tally.results
        assert all(other.balanced for other in (tally, *others))


async def test_quotas_of_addresses_are_kept_apart_and_say_when_to_come_back(null_path: Path) -> None:
    settings = {
        "MODEL_V1_PATH": str(null_path),
        "STREAM_MIN_FPS": "0",
        "ANONYMOUS_REQUESTS_PER_S": "2",
        "ANONYMOUS_STREAMS": "2",
        "STREAM_HELLO_TIMEOUT_S": "60",
    }
    with Service(settings) as service:
        url = f"{service.http_url}/v1/predict"
        async with client(GREEDY) as greedy, client(POLITE) as polite:
            begun = time.monotonic()
            answers = await asyncio.gather(*(post(greedy, url, SMALL) for _ in range(20)))
            took_s = time.monotonic() - begun
            statuses = Counter(status for status, _, _ in answers)
            # The quota allows twice as many at once as in a second.
            assert 4 <= statuses[200] <= 4 + 2 * took_s
            assert statuses[429] == 20 - statuses[200]
            assert all(int(retry) >= 1 for status, retry, _ in answers if status == 429)
            assert (await post(polite, url, SMALL))[0] == 200
            refused = service.metric("object_detection_refused_total", reason="quota")
            assert refused == statuses[429]
            await until_accounted(service, 21)
            stream = f"{service.ws_url}/v1/stream"
            sockets = [await greedy.ws_connect(stream) for _ in range(2)]
            with pytest.raises(aiohttp.WSServerHandshakeError) as error:
                await greedy.ws_connect(stream)
            assert error.value.status == 429
            assert error.value.headers is not None
            assert "Retry-After" in error.value.headers
            await (await polite.ws_connect(stream)).close()
            await sockets[0].close()
            async with asyncio.timeout(60):  # until the service has noticed that the socket was closed
                while True:
                    with contextlib.suppress(aiohttp.WSServerHandshakeError):
                        await (await greedy.ws_connect(stream)).close()
                        break
                    await asyncio.sleep(0.05)
            await sockets[1].close()


async def test_a_refusal_does_not_wait_for_the_body(null_path: Path) -> None:
    settings = {"MODEL_V1_PATH": str(null_path), "ANONYMOUS_REQUESTS_PER_S": "0.1"}
    with Service(settings) as service:
        async with client("127.0.0.1") as session:
            assert (await post(session, f"{service.http_url}/v1/predict", SMALL))[0] == 200
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n")
        # An answer that waited for the body, which does not come, would be 408.
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"retry-after" in answer.lower()
        writer.close()


async def test_a_post_waits_no_longer_than_it_may(yolox_nano: Path) -> None:
    """Send more images than the service can answer in time; it refuses those that would wait too long."""
    settings = {"MODEL_V1_PATH": str(yolox_nano), "REQUEST_QUEUE_S": "0.5", "INFERENCE_LANES": "1"}
    with Service(settings) as service:
        url = f"{service.http_url}/v1/predict"
        async with client(GREEDY) as session:
            for _ in range(5):
                await post(session, url, SMALL)
            answers = await asyncio.gather(*(post(session, url, SMALL) for _ in range(300)))
        assert {status for status, _, _ in answers} <= {200, 503}
        refused = [took_s for status, retry, took_s in answers if status == 503 and retry]
        served = [took_s for status, _, took_s in answers if status == 200]
        assert served
        assert len(refused) == len(answers) - len(served) > 0
        await until_accounted(service, 305)
