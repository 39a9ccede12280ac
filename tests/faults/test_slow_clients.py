"""R4, R6: slow, silent or vanished clients are disconnected in time; idle clients cost little."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import math
import resource
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import aiohttp
import psutil
import pytest

from tests.faults.conftest import Stubbed, Tier
from tests.faults.fault_proxy import FaultProxy
from tests.faults.nonce import Nonce
from tests.faults.nonce_clients import Account, Crowd, connect, together
from tests.faults.process_watch import ProcessWatch, look, settled
from tests.faults.results import Result
from tests.helpers.load import End, http_session, pack
from tests.helpers.probe_rider import ProbeRider
from tests.helpers.service import PATIENT_POSTS
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.alone

Start = Callable[..., Stubbed]

#: Short limits, so that the test does not take long.
LIMIT_S = 4.0
LIMITS = {
    "BODY_TIMEOUT_S": str(LIMIT_S),
    "STREAM_HELLO_TIMEOUT_S": str(LIMIT_S),
    "STREAM_IDLE_TIMEOUT_S": str(LIMIT_S),
    "STREAM_HEARTBEAT_S": str(LIMIT_S / 2),
    "STREAM_SEND_TIMEOUT_S": str(LIMIT_S),
}
#: Open streams take at most this many more bytes each than in the round before, in the mean of two rounds. A
#: session that is never forgotten takes about twice as many.
LEAK_BYTES_A_STREAM = 1000
MOST_LATER_ROUNDS = 6
#: The only limit that is not a setting: the time until the headers must be complete.
HEADERS_S = 15.0
KINDS = ("silent", "header", "body", "no hello", "never reads")

_UPGRADE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: detect.v1.json\r\n\r\n"
)


def _masked(opcode: int, payload: bytes) -> bytes:
    """Return a WebSocket frame with a mask of zeros."""
    size = len(payload)
    head = (
        bytes((0x80 | opcode, 0x80 | size))
        if size < 126
        else bytes((0x80 | opcode, 0xFE, size >> 8, size & 255))
    )
    return head + bytes(4) + payload


@functools.cache
def _many_frames() -> bytes:
    """Return 1,999 frame messages in one block of bytes; cached, because creating them takes long."""
    return b"".join(_masked(2, pack(seq, Nonce(1, seq).image(), png=True)) for seq in range(1, 2000))


async def _be_slow(kind: str, number: int, port: int) -> float:
    """Misbehave until the server closes the connection; return how long that took, in seconds."""
    address = (f"127.0.2.{1 + number % 200}", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=address)
    begun = time.monotonic()
    post = b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
    post += b"Content-Length: 100000\r\n"
    hello = json.dumps({"type": "hello", "streams": [{"id": 0, "codec": "png"}]}).encode()
    opening = {
        "silent": b"",
        "header": post,
        "body": post + b"\r\n" + bytes(100),
        "no hello": _UPGRADE,
        "never reads": _UPGRADE + _masked(1, hello) + _many_frames(),
    }
    try:
        writer.write(opening[kind])
        if kind == "never reads":
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            await asyncio.sleep(LIMIT_S)
        while True:
            if kind == "header":
                writer.write(b"X-Slow: 1\r\n")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    if not await reader.read(1 << 16):
                        break
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    return time.monotonic() - begun


async def _polite(service_url: str, seconds: float) -> Account:
    async with http_session() as session:
        running = Crowd(streams=3, posters=2, fps=8).start(session, service_url, End.after(seconds))
        return together(list(await asyncio.gather(*(task for _, task in running))))


async def _vanish(port: int, count: int) -> None:
    """Open streams through a network that drops everything from then on."""
    async with FaultProxy(port) as proxy, http_session() as session:
        sockets = []
        for _ in range(count):
            sockets.append(socket := await connect(session, f"http://127.0.0.1:{proxy.port}/v1/stream"))
            await socket.send_json({"type": "hello", "streams": [{"id": 0, "codec": "png"}]})
            await socket.receive_json()
        proxy.blackholed = True
        await asyncio.sleep(2 * LIMIT_S + 2)
        for socket in sockets:
            socket._response.close()


@pytest.mark.timeout(300)
def test_slow_silent_and_vanished_clients_are_cut_off_and_hurt_nobody(
    stubbed: Start, tier: Tier, figures: Result
) -> None:
    stub = stubbed(model_s=0.002, **LIMITS, **PATIENT_POSTS)
    of_each, vanished = tier.pick((10, 8), (180, 100))
    port, url = stub.service.port, stub.service.http_url

    _many_frames()  # do this now, and not while the polite clients on the same event loop are timed

    async def misbehave() -> tuple[Account, dict[str, float]]:
        tasks = {
            kind: [asyncio.create_task(_be_slow(kind, n, port)) for n in range(of_each)] for kind in KINDS
        }
        gone = asyncio.create_task(_vanish(port, vanished))
        beside = await _polite(url, 8.0)
        took = {kind: max(await asyncio.gather(*running)) for kind, running in tasks.items()}
        await gone
        return beside, took

    alone = asyncio.run(_polite(url, 3.0))
    before = settled(stub.service)
    with ProbeRider(port) as rider, ProcessWatch(stub.service) as watch:
        beside, took = asyncio.run(misbehave())
    rider.ride.check()
    wait_for(lambda: look(stub.service).fds <= before.fds + 2, "descriptors are given back")
    growth = watch.growth(before)
    figures.note(
        slow_clients=of_each * len(KINDS) + vanished,
        **{f"{kind}_cut_after_s": seconds for kind, seconds in took.items()},
        polite_p95_ms_alone=alone.percentile_s(0.95) * 1e3,
        polite_p95_ms_beside=beside.percentile_s(0.95) * 1e3,
        memory_mb_more=growth / 1e6,
    )
    assert (beside.wrong, beside.lost, beside.closed, beside.errors) == (0, 0, 0, {})
    if rider.ride.is_quiet:
        assert beside.percentile_s(0.95) <= 2 * alone.percentile_s(0.95) + 0.05 + rider.ride.control_max_s
    assert took["silent"] <= HEADERS_S + 5 * rider.ride.slowdown
    assert took["header"] <= HEADERS_S + 5 * rider.ride.slowdown
    assert max(took["body"], took["no hello"], took["never reads"]) <= 2 * LIMIT_S + 7 * rider.ride.slowdown
    assert growth <= 50e6


class _IdleStreams:
    """Holds open sockets with one stream each that send nothing after their `hello`."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self._sessions: list[aiohttp.ClientSession] = []
        self._sockets: list[aiohttp.ClientWebSocketResponse] = []

    async def open(self, url: str, count: int) -> None:
        """Open ``count`` streams, and wait until the service has welcomed all of them."""
        for first in range(0, count, 250):
            # Use several addresses, because the ports and connections of one address are limited.
            connector = aiohttp.TCPConnector(limit=0, local_addr=(f"127.0.3.{1 + first // 250}", 0))
            session = aiohttp.ClientSession(connector=connector)
            self._sessions.append(session)
            for _ in range(min(250, count - first)):
                socket = await session.ws_connect(url, protocols=["detect.v1.json"], compress=0)
                await socket.send_json({"type": "hello", "streams": [{"id": 0, "codec": "png"}]})
                self._sockets.append(socket)
        self.ids = [(await socket.receive_json())["session"] for socket in self._sockets]

    async def vanish(self) -> None:
        """Close all connections at the same moment without `bye`, so that their sessions may be resumed."""
        for socket in self._sockets:
            socket._response.close()
        for session in self._sessions:
            await session.close()


def _wait_until_forgotten(stub: Stubbed, ids: list[str], fds: int) -> None:
    """Wait until the service has given back the descriptors of streams and no longer keeps their sessions."""
    worker = stub.service.workers[0]
    wait_for(lambda: worker.num_fds() <= fds + 2, "descriptors are given back")
    # The answer for a session that is still kept hands it over, so each one can be asked for only once. The
    # last ones expire last.
    newest_first = reversed(ids)
    url = f"{stub.service.http_url}/v1/stream"
    wait_for(lambda: _post(f"{url}/{next(newest_first)}") == 404, "sessions are forgotten")


def _post(url: str) -> int:
    """POST nothing to an address and return the status of the answer."""
    request = urllib.request.Request(url, method="POST")  # noqa: S310 - loopback
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.timeout(900)
def test_idle_streams_cost_little_and_are_forgotten(stubbed: Start, tier: Tier, figures: Result) -> None:
    count = tier.pick(400, 8000)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft >= 2 * count + 1000 or not tier.full, (
        f"needs {2 * count + 1000} descriptors; `ulimit -n` is {soft}"
    )
    limits = {"STREAM_IDLE_TIMEOUT_S": "600", "STREAM_HEARTBEAT_S": "20", "STREAM_RESUME_S": "1"}
    stub = stubbed(model_s=0.001, **limits, **PATIENT_POSTS)
    worker: psutil.Process = stub.service.workers[0]
    url = f"{stub.service.http_url}/v1/stream"

    async def first_round() -> tuple[int, list[str], float, float]:
        """Return memory and sessions of open streams, share of a core while idle, and connections per s."""
        begun, streams = time.monotonic(), _IdleStreams()
        await streams.open(url, count)
        rate = count / (time.monotonic() - begun)
        used, begun = sum(worker.cpu_times()[:2]), time.monotonic()
        await asyncio.sleep(4.0)
        cpu = (sum(worker.cpu_times()[:2]) - used) / (time.monotonic() - begun)
        memory = worker.memory_info().rss
        active = await _polite(stub.service.http_url, 2.0)
        assert (active.wrong, active.lost, active.closed, active.errors) == (0, 0, 0, {})
        await streams.vanish()  # all at the same moment, which other clients must not notice
        return memory, streams.ids, cpu, rate

    async def later_round() -> tuple[int, list[str]]:
        """Return the memory while all streams are open, and their sessions."""
        streams = _IdleStreams()
        await streams.open(url, count)
        memory = worker.memory_info().rss
        await streams.vanish()
        return memory, streams.ids

    asyncio.run(_polite(stub.service.http_url, 1.0))
    before, fds = worker.memory_info().rss, worker.num_fds()
    with ProbeRider(stub.service.port) as rider:
        first, ids, cpu, rate = asyncio.run(first_round())
        memories, growth_bytes = [first], math.inf
        # A leak grows in every round. Memory that is used for the first time, or that the allocator keeps,
        # does not. Two rounds together are less noisy than one.
        while len(memories) <= MOST_LATER_ROUNDS and growth_bytes > LEAK_BYTES_A_STREAM:
            _wait_until_forgotten(stub, ids, fds)
            memory, ids = asyncio.run(later_round())
            memories.append(memory)
            if len(memories) > 2:
                growth_bytes = min(growth_bytes, (memory - memories[-3]) / (2 * count))
        _wait_until_forgotten(stub, ids, fds)
    rider.ride.check()
    figures.note(
        streams=count,
        kb_a_stream=(first - before) / count / 1e3,
        cpu_share_while_idle=cpu,
        opened_per_s=rate,
        bytes_more_a_stream_in_later_rounds=growth_bytes,
    )
    assert (first - before) / count <= 60e3
    assert cpu <= 0.3
    assert growth_bytes <= LEAK_BYTES_A_STREAM, memories
