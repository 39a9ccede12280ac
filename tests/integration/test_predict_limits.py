"""Keys, limits, deadlines and odd requests on the predict routes of a real service."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.conftest import shared
from tests.helpers.predict_post import post
from tests.helpers.service import Service
from tests.helpers.waiting import wait_for
from tests.unit.images import encode, png_chunk, scene


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture(scope="module")
def bus() -> bytes:
    return shared("data/images/bus.jpg").read_bytes()


SCENE = encode(scene())


async def test_addresses_and_methods_that_are_not_there(
    service: Service, session: aiohttp.ClientSession
) -> None:
    status, answer = await post(session, f"{service.http_url}/v3/predict", SCENE)
    assert (status, "known: v1, v2" in answer["detail"]) == (404, True)
    async with session.get(f"{service.http_url}/v1/predict") as got:
        assert (got.status, got.headers["Allow"]) == (405, "POST")
    for kind, expected in (("application/xml", 415), ("text/plain", 415), ("application/json", 400)):
        status, answer = await post(session, f"{service.http_url}/v1/predict", SCENE, Content_Type=kind)
        assert (status, kind in answer["detail"] or "JSON" in answer["detail"]) == (expected, True)
    status, _ = await post(
        session, f"{service.http_url}/v1/predict", SCENE, Content_Type="application/x-www-form-urlencoded"
    )
    assert status == 200, "what curl --data-binary sends unasked"
    status, _ = await post(session, f"{service.http_url}/v1/predict", SCENE, Content_Encoding="gzip")
    assert status == 415


@pytest.fixture(scope="module")
def strict(null_path: Path) -> Iterator[Service]:
    """Start a service with a key and small limits."""
    settings = {
        "MODEL_V1_PATH": str(null_path),
        "API_KEYS": "dummy-key",
        "BODY_TIMEOUT_S": "3",
        "IMAGE_MAX_BYTES": "20000",
        "IMAGE_MAX_PIXELS": "10000",
    }
    with Service(settings) as service:
        yield service


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic ZHVtbXk=", "dummy-key"])
async def test_without_the_key_nothing_is_answered(
    strict: Service, session: aiohttp.ClientSession, header: str | None
) -> None:
    headers = {} if header is None else {"Authorization": header}
    status, answer = await post(session, f"{strict.http_url}/v1/predict", SCENE, **headers)
    assert status == 401
    assert "dummy-key" not in str(answer)
    status, _ = await post(
        session,
        f"{strict.http_url}/v1/predict",
        encode(scene(100, 100)),
        Authorization="Bearer dummy-key",
    )
    assert status == 200


async def test_limits_hold_at_the_limit_and_one_beyond(
    strict: Service, session: aiohttp.ClientSession
) -> None:
    url, key = f"{strict.http_url}/v1/predict", "Bearer dummy-key"
    image = encode(scene(100, 100))

    async def chunks(size: int) -> AsyncIterator[bytes]:
        yield image
        yield bytes(size - len(image))

    for size, expected in ((20_000, 200), (20_001, 413)):
        padded = image + bytes(size - len(image))
        assert (await post(session, url, padded, Authorization=key))[0] == expected
        assert (await post(session, url, chunks(size), Authorization=key))[0] == expected
    status, answer = await post(session, url, encode(scene(100, 101), ".png"), Authorization=key)
    assert (status, "a PNG cannot be reduced" in answer["detail"]) == (413, True)
    status, answer = await post(session, url, encode(scene(100, 101)), Authorization=key)
    assert (status, answer["image"]) == (200, {"width": 100, "height": 101, "reduced": 2})


async def test_a_body_that_stalls_is_cut_off_with_408(strict: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", strict.port)
    writer.write(
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer dummy-key\r\n"
        b"Content-Type: image/jpeg\r\nContent-Length: 5000\r\n\r\n" + SCENE[:100]
    )
    answer = await asyncio.wait_for(reader.read(), 60)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in answer
    writer.close()
    await writer.wait_closed()


async def test_what_cannot_be_queued_or_answered_in_time_is_refused_not_kept(
    yolox_nano: Path, bus: bytes, session: aiohttp.ClientSession
) -> None:
    settings = {
        "MODEL_V1_PATH": str(yolox_nano),
        "REQUEST_QUEUE_MAX": "2",
        "REQUEST_TIMEOUT_S": "60",
        "INFERENCE_LANES": "1",
    }
    with Service(settings) as service:
        url = f"{service.http_url}/v1/predict"
        answers = await asyncio.gather(*(post(session, url, bus) for _ in range(40)))
        statuses = [status for status, _ in answers]
        assert set(statuses) <= {200, 503, 504}
        assert statuses.count(503) > 0
        assert statuses.count(200) > 0
        async with session.post(url, data=bus) as answer:
            assert answer.status == 200
        names = ("received_total", "inferred_total", "dropped_total", "failed_total", "in_flight")

        def accounted() -> bool:
            received, *outcomes = (
                service.metric(f"object_detection_frames_{name}", transport="http") for name in names
            )
            requests = service.metric("object_detection_requests_total")
            return received == 41 == sum(outcomes) and requests == 41

        await asyncio.to_thread(wait_for, accounted, "each image has its outcome")
        assert service.metric("object_detection_requests_total", status="200", version="v1") >= 1


async def test_a_client_that_leaves_is_not_worked_for(service: Service, bus: bytes) -> None:
    names = ("received_total", "inferred_total", "dropped_total", "failed_total")
    before = [service.metric(f"object_detection_frames_{name}", transport="http") for name in names]
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(bus)}\r\n\r\n"
            connection.sendall(head.encode() + bus)
    for _ in range(1200):
        after = [service.metric(f"object_detection_frames_{name}", transport="http") for name in names]
        received, *outcomes = (now - then for now, then in zip(after, before, strict=True))
        in_flight = service.metric("object_detection_frames_in_flight", transport="http")
        if received == 3 == sum(outcomes) and in_flight == 0:
            break
        await asyncio.sleep(0.05)
    assert received == 3 == sum(outcomes), "each has its outcome although nobody reads it"
    assert in_flight == 0


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"FOO\xff / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-A: a\r\n" * 80 + b"\r\n", 400),
        (b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nExpect: tea\r\nContent-Length: 4\r\n\r\n", 417),
        (b"GET / HTTP/1.1\r\nHost: x\r\nRange: bytes=99999999-\r\n\r\n", 416),
        (
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Encoding: br\r\nContent-Length: 4\r\n\r\nabcd",
            415,
        ),
        (b"GET /v1/stream HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n", 400),
    ],
    ids=["method", "length", "long line", "many headers", "expect", "range", "encoding", "upgrade"],
)
async def test_even_what_is_hardly_http_is_answered_with_a_problem(
    service: Service, head: bytes, status: int
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(head)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    # Skip the HTTP version: aiohttp answers in HTTP/1.0 when it could not parse the version of the request.
    assert answer[8:].startswith(f" {status} ".encode())
    assert b"Content-Type: application/problem+json" in answer
    length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    problem = json.loads(await asyncio.wait_for(reader.readexactly(length), 60))
    assert problem["status"] == status
    assert problem["detail"].endswith(".")
    assert "Bad Request." not in problem["detail"]
    writer.close()
    await writer.wait_closed()


async def test_a_file_under_another_name_is_told_which_name_is_wanted(
    service: Service, session: aiohttp.ClientSession, bus: bytes
) -> None:
    data = aiohttp.FormData()
    data.add_field("photo", bus, filename="bus.jpg", content_type="image/jpeg")
    status, answer = await post(session, f"{service.http_url}/v1/predict", data)
    assert (status, answer["code"], answer.get("field")) == (400, "no_image", "file"), answer
    assert "`photo`" in answer["detail"]
    status, answer = await post(
        session, f"{service.http_url}/v1/predict", b"x", Content_Type="multipart/form-data"
    )
    assert (status, "boundary" in answer["detail"]) == (400, True)


async def test_a_png_of_many_small_chunks_is_refused(
    service: Service, session: aiohttp.ClientSession
) -> None:
    png = encode(scene(), ".png")
    noisy = png[:33] + png_chunk(b"tEXt", b"") * 1000 + png[33:]
    status, answer = await post(session, f"{service.http_url}/v1/predict", noisy)
    assert (status, "chunks" in answer["detail"]) == (422, True)


async def test_refused_images_are_in_the_ledger(service: Service, session: aiohttp.ClientSession) -> None:
    names = ("received_total", "failed_total")
    before = [service.metric(f"object_detection_frames_{name}", transport="http") for name in names]
    await post(session, f"{service.http_url}/v1/predict", b"GIF89a" + bytes(40))

    def both_counted() -> bool:
        after = [service.metric(f"object_detection_frames_{name}", transport="http") for name in names]
        return [now - then for now, then in zip(after, before, strict=True)] == [1, 1]

    await asyncio.to_thread(wait_for, both_counted, "the image is received, and has failed")
