"""WebRTC over bad networks and among hostile datagrams, with a service that is a process of its own."""

from __future__ import annotations

import asyncio
import random
import socket
import statistics
from typing import Any

import numpy as np
import pytest

from tests.service import Service
from tests.udp_proxy import UdpProxy
from tests.webrtc_client import Track, WebrtcClient

FPS = 20


def noise(number: int) -> np.ndarray[Any, Any]:
    """Return a picture of some detail: a frame of it fills about five packets."""
    return (
        np.random.default_rng(number % 7).integers(0, 255, (96, 128, 3), np.uint8).repeat(3, 0).repeat(3, 1)
    )


def plain(number: int) -> np.ndarray[Any, Any]:
    """Return a picture whose frames fill one packet each."""
    return np.full((120, 160, 3), 60 + number % 50, np.uint8)


@pytest.mark.parametrize("picture", [plain, noise], ids=["one packet", "five packets"])
async def test_after_a_lost_packet_results_go_on_and_the_delay_returns_to_what_it_was(
    service: Service, picture: Any
) -> None:
    async with UdpProxy(delay_s=0.05, jitter_s=0.02) as proxy:
        client = WebrtcClient(
            f"{service.http_url}/v1/webrtc",
            track=Track(picture, fps=FPS),
            change_answer=proxy.rewrite,
        )
        async with client:
            await client.wait_for("result", 20)
            await asyncio.sleep(2)
            first = len(client.messages)
            await asyncio.sleep(3)
            base, calm = (
                delays(client, first, len(client.messages)),
                gaps(client, first, len(client.messages)),
            )
            proxy.loss = 0.02
            lossy = len(client.messages)
            await asyncio.sleep(12)
            proxy.loss = 0.0
            after = len(client.messages)
            await asyncio.sleep(1.5)
            last = len(client.messages)
            await asyncio.sleep(3)
            settled = delays(client, last, len(client.messages))
        assert proxy.lost > 3
        pauses = gaps(client, lossy, after)
        # One lost packet costs at most a round trip, or 150 ms and a key frame; two in a row may cost both. A
        # busy machine has pauses of its own: those of the time without loss are allowed on top.
        assert np.percentile(pauses, 95) < 0.25 + np.percentile(calm, 95)
        assert pauses.max() < 1.5 + calm.max()
        assert settled - base < 0.06 + calm.max() / 2


def gaps(client: WebrtcClient, begin: int, end: int) -> np.ndarray[Any, Any]:
    """Return the seconds between results."""
    entries = zip(client.times[begin:end], client.messages[begin:end], strict=True)
    pauses: np.ndarray[Any, Any] = np.diff([t for t, m in entries if m["type"] == "result"])
    return pauses


def delays(client: WebrtcClient, begin: int, end: int) -> float:
    """Return the median of arrival minus media time: the delay, up to a constant."""
    pairs = [
        (time, message["rtp"])
        for time, message in zip(client.times[begin:end], client.messages[begin:end], strict=True)
        if message["type"] == "result"
    ]
    assert len(pairs) > 10
    return float(statistics.median(time - rtp / 90_000 for time, rtp in pairs))


async def test_a_key_frame_of_many_packets_decodes_over_a_lossy_network(service: Service) -> None:
    def heavy(number: int) -> np.ndarray[Any, Any]:
        return np.random.default_rng(number).integers(0, 255, (480, 640, 3), np.uint8)

    seen: list[int] = []
    async with UdpProxy(delay_s=0.02, loss=0.005) as proxy:
        client = WebrtcClient(
            f"{service.http_url}/v1/webrtc", track=Track(heavy, fps=3), change_answer=proxy.rewrite
        )

        def drop(data: bytes) -> bool:
            seen.append(len(data))
            return len(seen) % 200 == 150

        proxy.drop = drop
        async with client:
            results = await client.wait_for("result", 3, timeout_s=40)
    assert (results[-1]["width"], results[-1]["height"]) == (640, 480)
    assert len(seen) > 100


async def test_datagrams_of_strangers_change_nothing(service: Service) -> None:
    """ClientHellos before the handshake, then junk of every kind, from sockets that nobody announced."""
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
                    stranger.recv(2000)  # and nobody has answered
        assert len(results) >= before + 20
