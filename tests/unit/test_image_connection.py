"""A hostile host of an image cannot keep the event loop busy by headers, informational answers or chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp.client_proto import ResponseHandler

from streamer.core.byte_budget import ByteBudget
from streamer.http.problem_details import Problem
from streamer.imaging.image_header import Limits
from streamer.predict import image_url
from streamer.predict.image_connection import FRAMING_BYTES, STEP_BYTES
from tests.helpers.image_hosts import IMAGE, fetch

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
#: What the kernel delivers to the HTTP client in one call, some times over.
MANY_BYTES = 1 << 20


@pytest.fixture(autouse=True)
def _time_for_slow_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_url, "_HEAD_S", 60.0)
    monkeypatch.setattr(image_url, "GRACE_S", 60.0)


def chunks(data: bytes, size: int) -> bytes:
    parts = (data[begin : begin + size] for begin in range(0, len(data), size))
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@asynccontextmanager
async def host(answer: bytes) -> AsyncIterator[int]:
    """Send ``answer`` to each client as fast as it reads; yield the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the sizes of the pieces that aiohttp parses."""
    sizes: list[int] = []
    parse = ResponseHandler.data_received

    def note(self: ResponseHandler, data: bytes) -> None:
        sizes.append(len(data))
        parse(self, data)

    monkeypatch.setattr(ResponseHandler, "data_received", note)
    return sizes


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" * (MANY_BYTES // 25),
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * (MANY_BYTES // 40),
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"x" * 4000) for n in range(100)),
        CHUNKED + chunks(bytes(MANY_BYTES // 6), 1),
        CHUNKED + (b"1;" + b"x" * 500 + b"\r\nx\r\n") * (MANY_BYTES // 510),
        CHUNKED + b"1;" + b"x" * MANY_BYTES,
        CHUNKED + b"0\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"x" * 1000) for n in range(1000)),
        b"HTTP/1.1 302 Found\r\nLocation: /again\r\n" + b"X: x\r\n" * (MANY_BYTES // 6),
    ],
    ids=["continue", "hints", "headers", "chunks", "extensions", "one extension", "trailers", "redirect"],
)
async def test_what_is_no_image_is_parsed_up_to_a_limit(
    answer: bytes, parsed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.helpers.image_hosts.LIMITS", Limits())
    async with host(answer) as port:
        with pytest.raises(Problem) as refused:
            await fetch(f"http://127.0.0.1:{port}/", f"*:{port}")
    assert (refused.value.status, refused.value.code) == (422, "url_failed")
    assert max(parsed) <= STEP_BYTES
    assert sum(parsed) <= 2 * FRAMING_BYTES


async def test_the_refusal_says_what_is_too_much() -> None:
    async with host(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000) as port:
        with pytest.raises(Problem) as refused:
            await fetch(f"http://127.0.0.1:{port}/", f"*:{port}")
    assert "`images[0]` is sent with more than 16384 bytes of headers and chunk sizes" in refused.value.detail


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + LENGTH % len(IMAGE) + IMAGE,
        LENGTH % len(IMAGE) + IMAGE,
        b"HTTP/1.1 200 OK\r\n\r\n" + IMAGE,
        CHUNKED + chunks(IMAGE, 100),
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nSet-Cookie: %b\r\n\r\n" % (len(IMAGE), b"x" * 8000)
        + IMAGE,
    ],
    ids=["hints", "length", "until the end", "chunks", "large header"],
)
async def test_honest_answers_are_read(answer: bytes) -> None:
    async with host(answer) as port:
        assert await fetch(f"http://127.0.0.1:{port}/", f"*:{port}") == [IMAGE]


@pytest.mark.parametrize("chunk_bytes", [0, 64, 4096, 100_000])
async def test_a_large_image_arrives_whole_although_its_reader_is_slower_than_its_host(
    chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = b"\xff\xd8\xff" + b"".join(number.to_bytes(4, "big") for number in range(1_000_000))
    monkeypatch.setattr("tests.helpers.image_hosts.LIMITS", Limits(image_bytes=8 << 20, total_bytes=8 << 20))
    answer = CHUNKED + chunks(image, chunk_bytes) if chunk_bytes else LENGTH % len(image) + image
    async with host(answer) as port:
        found = await fetch(f"http://127.0.0.1:{port}/", f"*:{port}", budget=ByteBudget(64 << 20))
    assert found == [image]
