"""The supervisor accepts connections for workers that do not accept them, and only for those."""

from __future__ import annotations

import asyncio
import contextlib
import email
import socket
import time
from collections.abc import Iterator

import pytest

from inference.ipc.shared_status import Presence, SharedStatus
from streamer.server.openapi import openapi_document
from streamer.supervisor import listeners
from streamer.supervisor.listeners import FallbackAcceptor, browser_url
from tests.helpers.openapi_check import OpenApiCheck, RealAnswer


class Scene:
    """Holds the ports and channels of workers that do nothing by themselves, and the shared status."""

    def __init__(self, workers: int) -> None:
        self.shared_status = SharedStatus()
        self.listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(workers)]
        self.channels = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(workers)]
        for near, far in self.channels:
            near.setblocking(False)
            far.setblocking(False)

    def serve(self, number: int) -> None:
        self.shared_status.post_worker(number, "presence", Presence.SERVING)
        self.shared_status.post_worker(number, "beat", time.monotonic())

    def start(self, root_path: str = "") -> FallbackAcceptor:
        channels = [near for near, _ in self.channels]
        return FallbackAcceptor(self.shared_status, self.listeners, channels, root_path)

    async def ask(self, number: int, request: bytes, timeout_s: float = 60.0) -> bytes:
        address = self.listeners[number].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        writer.write(request)
        try:
            async with asyncio.timeout(timeout_s):
                return await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def handed_over(self, number: int) -> socket.socket:
        async with asyncio.timeout(60.0):
            while True:
                with contextlib.suppress(BlockingIOError):
                    _, fds, _, _ = socket.recv_fds(self.channels[number][1], 16, 1)
                    return socket.socket(fileno=fds[0])
                await asyncio.sleep(0.01)

    def close(self) -> None:
        for listener in self.listeners:
            listener.close()
        for pair in self.channels:
            for end in pair:
                end.close()
        self.shared_status.close()


def answer(connection: socket.socket, data: bytes) -> None:
    """Read the request, because closing with unread bytes would reset the connection, and answer."""
    connection.setblocking(True)
    connection.recv(4096)
    connection.sendall(data)


@pytest.fixture(autouse=True)
def _a_busy_machine_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "HEAD_S", 60.0)
    monkeypatch.setattr(listeners, "FRESH_BEAT_S", 3600.0)


@pytest.fixture
def one() -> Iterator[Scene]:
    scene = Scene(1)
    yield scene
    scene.close()


@pytest.fixture
def two() -> Iterator[Scene]:
    scene = Scene(2)
    yield scene
    scene.close()


async def test_probes_of_a_lone_worker_that_is_gone_are_answered(one: Scene) -> None:
    stand_in = one.start()
    live = await one.ask(0, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    ready = await one.ask(0, b"GET /health?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")
    stand_in.close()
    assert live.startswith(b"HTTP/1.1 200 ")
    assert b'"alive": true' in live
    assert ready.startswith(b"HTTP/1.1 503 ")
    assert b"reasons" in ready


async def test_probes_below_the_root_path_are_answered_as_those_without_it(one: Scene) -> None:
    stand_in = one.start("/vision")
    for path in (b"/livez", b"/vision/livez", b"/vision/livez?x=1"):
        assert (await one.ask(0, b"GET %b HTTP/1.1\r\n\r\n" % path)).startswith(b"HTTP/1.1 200 "), path
    for path in (b"/health", b"/vision/health"):
        assert (await one.ask(0, b"GET %b HTTP/1.1\r\n\r\n" % path)).startswith(b"HTTP/1.1 503 "), path
    for path in (b"/visionary/health", b"/visionhealth", b"/vision/vision/health", b"/vision"):
        asking = asyncio.create_task(one.ask(0, b"GET %b HTTP/1.1\r\n\r\n" % path))
        with await one.handed_over(0) as connection:
            answer(connection, b"by the worker")
        assert await asking == b"by the worker", path
    stand_in.close()


@pytest.mark.parametrize("draining", [0, 1])
async def test_it_answers_probes_as_the_openapi_document_says(one: Scene, draining: int) -> None:
    one.shared_status.post("draining", draining)
    stand_in = one.start()
    document = OpenApiCheck(openapi_document())
    for path in ("/livez", "/health"):
        text = await one.ask(0, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        head, _, body = text.partition(b"\r\n\r\n")
        status_line, _, headers = head.partition(b"\r\n")
        fields = dict(email.message_from_bytes(headers).items())
        document.check(RealAnswer("GET", path, int(status_line.split()[1]), fields, body))
    stand_in.close()
    assert document.seen == {("livez", "200"), ("health", "503")}


async def test_what_is_no_probe_waits_for_the_successor_with_all_that_it_sent(one: Scene) -> None:
    stand_in = one.start()
    request = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    asking = asyncio.create_task(one.ask(0, request))
    connection = await one.handed_over(0)
    with connection:
        assert connection.recv(4096) == request
        connection.sendall(b"answered")
    assert await asking == b"answered"
    stand_in.close()


async def test_a_silent_connection_is_handed_over_too(one: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listeners, "HEAD_S", 0.1)
    stand_in = one.start()
    asking = asyncio.create_task(one.ask(0, b""))
    (await one.handed_over(0)).close()
    await asking
    stand_in.close()


async def test_with_another_worker_everything_goes_there(two: Scene) -> None:
    two.serve(1)
    stand_in = two.start()
    asking = asyncio.create_task(two.ask(0, b"GET /livez HTTP/1.1\r\n\r\n"))
    with await two.handed_over(1) as connection:
        answer(connection, b"by the other")
    assert await asking == b"by the other"
    stand_in.close()


async def test_a_worker_that_accepts_is_left_alone(one: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    planned: asyncio.Queue[tuple[int, float]] = asyncio.Queue()
    monkeypatch.setattr(
        FallbackAcceptor,
        "_check_later",
        lambda _, number, accepted, _delay_s: planned.put_nowait((number, accepted)),
    )
    one.serve(0)
    stand_in = one.start()
    clients = [await asyncio.open_connection(*one.listeners[0].getsockname())]
    for accepted in range(1, 21):  # a connection always waits, and the worker accepts one before each check
        clients.append(await asyncio.open_connection(*one.listeners[0].getsockname()))
        async with asyncio.timeout(60):
            check = await planned.get()
        one.listeners[0].accept()[0].close()
        one.shared_status.post_worker(0, "accepted", accepted)
        stand_in._check(*check)
    with pytest.raises(BlockingIOError):
        socket.recv_fds(one.channels[0][1], 16, 1)
    stand_in.close()
    for _, writer in clients:
        writer.close()


async def test_a_probe_while_a_slow_worker_beats_waits_for_its_own_word(one: Scene) -> None:
    one.serve(0)
    stand_in = one.start()
    asking = asyncio.create_task(one.ask(0, b"GET /health HTTP/1.1\r\n\r\n"))

    async def beat() -> None:
        while True:
            one.serve(0)
            await asyncio.sleep(0.05)

    beating = asyncio.create_task(beat())
    with await one.handed_over(0) as connection:
        answer(connection, b"its own word")
    assert await asking == b"its own word"
    beating.cancel()
    assert (await one.ask(0, b"GET /livez HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    stand_in.close()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000/"),
        ("0.0.0.0", "http://127.0.0.1:8000/"),  # noqa: S104 - nothing listens
        ("::", "http://[::1]:8000/"),
        ("::1", "http://[::1]:8000/"),
        ("fd00::7", "http://[fd00::7]:8000/"),
        ("vision.example", "http://vision.example:8000/"),
    ],
)
def test_the_address_to_open_can_be_opened(host: str, url: str) -> None:
    assert browser_url(host, 8000) == url
    assert browser_url(host, 8000, "/vision") == f"{url}vision/"
