"""S4: ambiguous requests are refused, each limit holds exactly at its value, and memory does not grow."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.model_factory import null_model
from tests.helpers.raw_websocket import RawSocket
from tests.helpers.service import ROOT, Service

MIB = 1 << 20
IMAGE_MAX = 64 << 10
STILL = (ROOT / "data" / "stills" / "belt.jpg").read_bytes()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    model = null_model(tmp_path_factory.mktemp("models") / "null.onnx")
    settings = {"MODEL_V1_PATH": str(model), "SAMPLING": "False", "BODY_TIMEOUT_S": "3"}
    settings |= {"IMAGE_MAX_BYTES": str(IMAGE_MAX), "REQUEST_MAX_BYTES": str(4 * IMAGE_MAX)}
    with Service(settings) as running:
        yield running


def request(line: str, *lines: str, body: bytes = b"") -> bytes:
    return "\r\n".join([line, *lines, "", ""]).encode("latin-1") + body


POST = "POST /v1/predict HTTP/1.1"
HOST = "Host: localhost"
TYPE = "Content-Type: image/jpeg"
#: Requests whose end or meaning a proxy in front of the service may read differently than the service.
AMBIGUOUS = {
    "length and chunks": request(
        POST, HOST, "Content-Length: 4", "Transfer-Encoding: chunked", body=b"0\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    ),
    "two lengths": request(POST, HOST, "Content-Length: 4", "Content-Length: 5", body=b"abcde"),
    "a length with a sign": request(POST, HOST, "Content-Length: +4", body=b"abcd"),
    "a length below 0": request(POST, HOST, "Content-Length: -4", body=b"abcd"),
    "a length in other digits": request(POST, HOST, "Content-Length: 0x4", body=b"abcd"),
    "an unknown coding": request(POST, HOST, "Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "chunked twice": request(POST, HOST, "Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "lines without CR": b"POST /v1/predict HTTP/1.1\nHost: localhost\nContent-Length: 0\n\n",
    "a blank before the colon": request(POST, HOST, "Content-Length : 4", body=b"abcd"),
    "a folded header": request(POST, HOST, "X-One: a", " b", "Content-Length: 0"),
    "no host": request(POST, "Content-Length: 0"),
    "two hosts": request(POST, HOST, "Host: other", "Content-Length: 0"),
    "NUL in a header": request(POST, HOST, "X-One: a\0b", "Content-Length: 0"),
    "a chunk of no size": request(
        POST, HOST, TYPE, "Transfer-Encoding: chunked", body=b"zz\r\nabcd\r\n0\r\n\r\n"
    ),
    "a chunk below 0": request(
        POST, HOST, TYPE, "Transfer-Encoding: chunked", body=b"-1\r\nabcd\r\n0\r\n\r\n"
    ),
    "a chunk longer than said": request(
        POST, HOST, TYPE, "Transfer-Encoding: chunked", body=b"2\r\nabcd\r\n0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_a_request_that_can_be_read_in_two_ways_is_refused_and_ends_the_connection(
    service: Service, name: str
) -> None:
    with RawSocket(service.port, timeout_s=30) as client:
        client.send(AMBIGUOUS[name] + request("GET /smuggled HTTP/1.1", HOST))
        status, headers, body = client.answer()
        assert status in (400, 501), body
        assert headers["content-type"].startswith("application/problem+json")
        # The server does not read the bytes after it as another request.
        assert client.answer()[0] == 0
    assert "smuggled" not in body.decode()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "identity, gzip"])
def test_a_compressed_body_is_refused_unread(service: Service, coding: str) -> None:
    bomb = gzip.compress(bytes(2 * MIB))
    with RawSocket(service.port) as client:
        head = (POST, HOST, TYPE, f"Content-Encoding: {coding}", f"Content-Length: {len(bomb)}")
        client.send(request(*head, body=bomb))
        assert client.answer()[0] == 415


def post(service: Service, body: bytes, *headers: str, kind: str = TYPE) -> tuple[int, dict[str, str], bytes]:
    with RawSocket(service.port) as client:
        client.send(request(POST, HOST, kind, f"Content-Length: {len(body)}", *headers, body=body))
        return client.answer()


def padded(size: int) -> bytes:
    """Return a JPEG of exactly ``size`` bytes, padded by comments in front of its tables."""
    missing, comments = size - len(STILL), b""
    while missing:
        take = min(missing, 65_000)
        if 0 < missing - take < 4:
            take -= 4
        comments += b"\xff\xfe" + (take - 2).to_bytes(2, "big") + bytes(take - 4)
        missing -= take
    return STILL[:2] + comments + STILL[2:]


def test_the_largest_image_is_taken_and_one_byte_more_is_not(service: Service) -> None:
    assert post(service, padded(IMAGE_MAX))[0] == 200
    assert post(service, padded(IMAGE_MAX + 1))[0] == 413


def test_the_largest_body_in_chunks_is_taken_and_one_byte_more_is_not(service: Service) -> None:
    for size, expected in ((IMAGE_MAX, 200), (IMAGE_MAX + 1, 413)):
        with RawSocket(service.port) as client:
            data = padded(size)
            chunks = b"".join(
                b"%x\r\n%b\r\n" % (len(data[i : i + 999]), data[i : i + 999]) for i in range(0, size, 999)
            )
            client.send(request(POST, HOST, TYPE, "Transfer-Encoding: chunked", body=chunks + b"0\r\n\r\n"))
            assert client.answer()[0] == expected


def test_a_body_of_single_bytes_is_read(service: Service) -> None:
    with RawSocket(service.port, timeout_s=30) as client:
        chunks = b"".join(b"1\r\n%b\r\n" % STILL[i : i + 1] for i in range(len(STILL)))
        client.send(request(POST, HOST, TYPE, "Transfer-Encoding: chunked", body=chunks + b"0\r\n\r\n"))
        assert client.answer()[0] == 200


@pytest.mark.parametrize(("lines", "expected"), [(8100, 200), (8300, 400)])
def test_the_longest_header_line(service: Service, lines: int, expected: int) -> None:
    assert post(service, STILL, "X-Long: " + "a" * (lines - 8))[0] == expected


@pytest.mark.parametrize(("count", "expected"), [(60, 200), (65, 400)])
def test_the_most_headers(service: Service, count: int, expected: int) -> None:
    assert post(service, STILL, *(f"X-{n}: a" for n in range(count - 3)))[0] == expected


@pytest.mark.parametrize(("length", "expected"), [(8100, 404), (8300, 400)])
def test_the_longest_address(service: Service, length: int, expected: int) -> None:
    with RawSocket(service.port) as client:
        client.send(request(f"GET /{'a' * (length - 15)} HTTP/1.1", HOST))
        assert client.answer()[0] == expected


def test_a_body_that_stops_is_given_up(service: Service) -> None:
    with RawSocket(service.port, timeout_s=60) as client:
        begun = time.monotonic()
        client.send(request(POST, HOST, TYPE, "Content-Length: 1000", body=b"\xff\xd8"))
        assert client.answer()[0] == 408
        assert time.monotonic() - begun > 2


def test_a_hundred_requests_at_once_are_answered_in_order(service: Service) -> None:
    with RawSocket(service.port, timeout_s=30) as client:
        ids = [f"number-{n:03}" for n in range(100)]
        client.send(b"".join(request("GET /livez HTTP/1.1", HOST, f"X-Request-Id: {each}") for each in ids))
        found = [client.answer() for _ in ids]
    assert [status for status, _, _ in found] == [200] * 100
    assert [
        headers.get("x-request-id", each) for (_, headers, _), each in zip(found, ids, strict=True)
    ] == ids


def test_a_hundred_images_at_once_are_answered_in_order(service: Service) -> None:
    with RawSocket(service.port, timeout_s=60) as client:
        ids = [f"image-{n:03}" for n in range(100)]
        head = (POST, HOST, TYPE, f"Content-Length: {len(STILL)}")
        client.send(b"".join(request(*head, f"X-Request-Id: {each}", body=STILL) for each in ids))
        found = [json.loads(client.answer()[2])["request_id"] for _ in ids]
    assert found == ids


def test_memory_stays_and_the_log_keeps_its_pace(service: Service) -> None:
    (worker,) = service.workers
    before, logged, begun = worker.memory_info().rss, len(service.log), time.monotonic()
    bomb = gzip.compress(bytes(32 * MIB), 9)
    for _ in range(30):
        for data in AMBIGUOUS.values():
            with RawSocket(service.port) as client:
                client.send(data)
        post(service, bomb, "Content-Encoding: gzip")
    assert worker.memory_info().rss - before < 80 * MIB
    # The service logs each kind of line at most once per second, however many requests arrive.
    assert len(service.log) - logged < 40_000 + 2_000 * (time.monotonic() - begun)
    assert service.get("/livez")[0] == 200


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND", "FOO"])
def test_methods_that_nobody_needs_are_refused(service: Service, method: str) -> None:
    with RawSocket(service.port) as client:
        client.send(request(f"{method} /v1/predict HTTP/1.1", HOST))
        status, headers, body = client.answer()
    assert status in (400, 404, 405, 501)
    assert b"TRACE" not in body or method != "TRACE"
    assert "python" not in headers.get("server", "").lower()
    assert "aiohttp" not in headers.get("server", "").lower()


def test_answers_tell_browsers_not_to_guess(service: Service) -> None:
    for path in ("/", "/docs", "/health", "/v1/predict", "/nowhere"):
        with RawSocket(service.port) as client:
            client.send(request(f"GET {path} HTTP/1.1", HOST))
            _, headers, _ = client.answer()
        assert headers.get("x-content-type-options") == "nosniff", path


def test_a_path_leads_to_no_file(service: Service) -> None:
    for path in (
        "/../../etc/passwd",
        "/js/..%2f..%2fetc/passwd",
        "/js/%2e%2e/page.css/../../x",
        "//etc/passwd",
    ):
        with RawSocket(service.port) as client:
            client.send(request(f"GET {path} HTTP/1.1", HOST))
            status, _, body = client.answer()
        assert status in (400, 404), path
        assert b"root:" not in body
    assert Path("/etc/passwd").exists()
