"""WebRTC over networks that lose packets and among hostile datagrams, with a service in its own processes."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.service import Service
from tests.helpers.udp_proxy import UdpProxy
from tests.helpers.webrtc_client import Track, WebrtcClient

pytestmark = pytest.mark.alone

FPS = 20


def noise(number: int) -> np.ndarray[Any, Any]:
    """Return an image with enough detail that its frame fills about five packets."""
    return np.random.default_rng(number % 7).integers(0, 255, (20, 28, 3), np.uint8).repeat(8, 0).repeat(8, 1)


def plain(number: int) -> np.ndarray[Any, Any]:
    """Return an image whose frames fill one packet each."""
    return np.full((120, 160, 3), 60 + number % 50, np.uint8)


@pytest.mark.parametrize(("image", "packets"), [(plain, 1), (noise, 5)], ids=["one packet", "five packets"])
async def test_after_a_lost_packet_output_resumes_and_the_delay_returns_to_what_it_was(
    service: Service, image: Any, packets: int, tmp_path: Path, full: bool
) -> None:
    if packets == 1 and not full:
        pytest.skip("one packet a frame is the simpler case; `--full` runs it")
    lossy_s = 60 if full else 8
    async with UdpProxy(delay_s=0.05, jitter_s=0.02) as proxy:
        client = WebrtcClient(
            f"{service.http_url}/v1/webrtc",
            track=Track(image, fps=FPS),
            change_answer=proxy.rewrite,
        )
        async with client:
            await client.wait_for("result", 20)
            await asyncio.sleep(2)
            calm_from = time.monotonic()
            await asyncio.sleep(4)
            lossy_from = time.monotonic()
            proxy.loss = 0.02
            await asyncio.sleep(lossy_s)
            # With one packet per frame, few packets are lost in this time; wait until six are lost.
            while sum(lost for at, _, lost in proxy.media if at > lossy_from) < 6:
                assert time.monotonic() - lossy_from < 90
                await asyncio.sleep(0.5)
            lossy_to = time.monotonic()
            proxy.loss = 0.0
            await asyncio.sleep(1.5)
            settled_from = time.monotonic()
            await asyncio.sleep(3)
            settled_to = time.monotonic()
            await answered_after(client, proxy)
    sizes = Counter(rtp for at, rtp, _ in proxy.media if calm_from < at < lossy_from)
    assert packets - 1 <= statistics.median(sizes.values()) <= packets + 2, sizes
    base = ages(client, proxy, calm_from, lossy_from, lost=False)
    settled = ages(client, proxy, settled_from, settled_to, lost=False)
    resumed = ages(client, proxy, lossy_from, lossy_to, lost=True) - np.median(base)
    figures = {
        "packets_a_frame": statistics.median(sizes.values()),
        "lost": len(resumed),
        "base_ms": round(1e3 * float(np.median(base))),
        "base_p95_ms": round(1e3 * float(np.quantile(base, 0.95))),
        "resumed_p50_ms": round(1e3 * float(np.median(resumed))),
        "resumed_p90_ms": round(1e3 * float(np.quantile(resumed, 0.9))),
        "resumed_max_ms": round(1e3 * float(resumed.max())),
        "settled_ms": round(1e3 * float(np.median(settled))),
    }
    (tmp_path / "figures.json").write_text(json.dumps(figures))
    print(json.dumps(figures))  # noqa: T201 - for whoever asks with -s
    assert len(resumed) > 3
    # A busy machine adds delays. Allow those that the time without loss shows on top of each bound.
    own = float(np.quantile(base, 0.95) - np.median(base))
    # The next packet shows that one is missing; repeating it costs one round trip. With one packet per frame,
    # the service notices two losses in a row one frame later. If all requests for the packet or all answers
    # are lost, the service waits 150 ms and asks for a key frame. With only a few losses the 90th percentile
    # is close to the maximum, so its bound is wider; the minute of `--full` has enough losses for 0.3 s.
    assert np.median(resumed) < 0.3 + own, figures
    assert np.quantile(resumed, 0.9) < (0.3 if full else 0.5) + own, figures
    assert resumed.max() < 1.0 + 2 * own, figures
    assert np.median(settled) - np.median(base) < 0.06 + own / 2, figures


async def answered_after(client: WebrtcClient, proxy: UdpProxy) -> None:
    """Wait for the result of a frame of which no packet has been sent yet."""
    # The last packet may be an older one that was asked for again because packets overtook each other.
    first = proxy.media[0][1]
    newest = max((rtp - first) % 2**32 for _, rtp, _ in proxy.media)
    async with asyncio.timeout(60):
        while not any(newest < (result["rtp"] - first) % 2**32 for result in client.of_type("result")):
            await asyncio.sleep(0.05)


def ages(
    client: WebrtcClient, proxy: UdpProxy, begin: float, end: float, *, lost: bool
) -> np.ndarray[Any, Any]:
    """Return the seconds from each packet between ``begin`` and ``end`` to the next result.

    The result belongs to the packet's frame or to a later one. ``lost`` selects the packets that the proxy
    dropped or those that passed.
    """
    results = [
        (at, message["rtp"])
        for at, message in zip(client.times, client.messages, strict=True)
        if message["type"] == "result"
    ]
    found = []
    for at, rtp, was_lost in proxy.media:
        if begin < at < end and was_lost is lost:
            later = (came for came, of in results if came > at and (of - rtp) % 2**32 < 2**31)
            found.append(next(later) - at)
    return np.array(found)


async def test_a_key_frame_of_200_packets_decodes_although_one_is_lost(service: Service) -> None:
    # The service waits only 150 ms for a repeated packet, and a machine may stall for longer.
    for _ in range(3):
        if await first_of_200_packets(service):
            return
    pytest.fail("the lost packet was not repeated in time in any of three sessions")


async def first_of_200_packets(service: Service) -> bool:
    """Lose one packet of a large key frame; return whether the first result belongs to that frame."""

    def heavy(number: int) -> np.ndarray[Any, Any]:
        return np.random.default_rng(number).integers(0, 255, (960, 1280, 3), np.uint8)

    async with UdpProxy(delay_s=0.02, jitter_s=0.01) as proxy:
        client = WebrtcClient(
            f"{service.http_url}/v1/webrtc", track=Track(heavy, fps=1), change_answer=proxy.rewrite
        )
        seen = 0

        def drop(_: bytes) -> bool:
            nonlocal seen
            seen += 1
            # Drop the 150th packet, near the end of the first frame: the sender repeats only its last 128.
            return seen == 150

        proxy.drop = drop
        async with client:
            results = await client.wait_for("result", 1)
    # If the first result belongs to the first frame, a key frame, the sender repeated the lost packet, and
    # the service did not need another key frame.
    _, first, _ = proxy.media[0]
    assert sum(rtp == first for _, rtp, _ in proxy.media) >= 200
    assert any(rtp == first and was_lost for _, rtp, was_lost in proxy.media)
    assert (results[0]["width"], results[0]["height"]) == (1280, 960)
    return bool(results[0]["rtp"] == first)


async def test_datagrams_of_strangers_change_nothing(service: Service) -> None:
    """An unknown socket sends ClientHellos before the handshake and junk later; it gets no answer.

    The session delivers its results meanwhile.
    """
    async with UdpProxy() as proxy:
        hello = bytes.fromhex("16feff0000000000000000") + bytes(100)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            client = WebrtcClient(
                f"{service.http_url}/v1/webrtc", track=Track(fps=20), change_answer=proxy.rewrite
            )

            def race(answer: str) -> str:
                rewritten = proxy.rewrite(answer)
                for _ in range(50):
                    stranger.sendto(hello, proxy.server)
                return rewritten

            client._change_answer = race
            async with client:
                for _ in range(20):
                    stranger.sendto(hello, proxy.server)
                    await asyncio.sleep(0.005)
                await client.wait_for("result", 5)
                drawn = random.Random(3)
                before = len(client.of_type("result"))
                for number in range(3000):
                    junk = bytes((drawn.choice((0x00, 0x16, 0x80, 0x90, 0xFF)),)) + drawn.randbytes(60)
                    stranger.sendto(junk, proxy.server)
                    if number % 30 == 0:
                        await asyncio.sleep(0.02)
                results = await client.wait_for("result", before + 20)
                assert (await client.state())["video"]["gaps"] == 0
                stranger.setblocking(False)
                with pytest.raises(BlockingIOError):
                    stranger.recv(2000)  # the service has sent no answer
        assert len(results) >= before + 20
