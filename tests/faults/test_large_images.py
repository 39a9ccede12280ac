"""R21: clients that send images of the largest size take a bounded amount of memory, and it is given back."""

from __future__ import annotations

import asyncio
import contextlib
import io
import threading
import time
from collections import Counter
from collections.abc import Iterator

import aiohttp
import cv2
import numpy as np
import psutil
import pytest

from tests.faults.conftest import QUIET, Tier
from tests.faults.results import Result
from tests.helpers.load import End
from tests.helpers.service import Service
from tests.unit.images import encode

CLIENTS = 10
WIDTH, HEIGHT = 8000, 4100
MOST_BYTES = 80e6
#: A progressive JPEG keeps its coefficients until its last scan: 16 bits each, 1.5 per pixel.
COEFFICIENT_BYTES = WIDTH * HEIGHT * 1.5 * 2
LEFT_BYTES = 20e6


def picture(*options: int) -> bytes:
    """Return a valid JPEG of 33 megapixels in some 6 MB."""
    noise = np.random.default_rng(0).integers(0, 255, (1024, 2048, 3), dtype=np.uint8)
    large = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    return encode(np.asarray(large, np.uint8), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 50, *options)


def pss_bytes(service: Service) -> int:
    """Return the memory of all processes; what several share counts once."""
    total = 0
    for process in [service.supervisor, *service.supervisor.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError):
            total += process.memory_full_info().pss
    return total


@contextlib.contextmanager
def peak_watch(service: Service) -> Iterator[list[int]]:
    """Measure some twenty times per second until the block ends; the list gets the figures."""
    seen: list[int] = []
    ending = threading.Event()

    def watch() -> None:
        while not ending.wait(0.02):
            seen.append(pss_bytes(service))

    thread = threading.Thread(target=watch, name="peak-watch", daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ending.set()
        thread.join()


async def post_greedily(url: str, address: str, body: bytes, until: End, seen: Counter[int]) -> None:
    connector = aiohttp.TCPConnector(limit=0, local_addr=(address, 0))
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(30)) as session:
        while not until.passed:
            # A client that is refused before its body was read may find its connection closed.
            with contextlib.suppress(aiohttp.ClientError):
                async with session.post(
                    url, data=io.BytesIO(body), headers={"Content-Type": "image/jpeg"}
                ) as answer:
                    await answer.read()
                    seen[answer.status] += 1
            await asyncio.sleep(0.05)


async def load(url: str, body: bytes, seconds: float) -> Counter[int]:
    until, seen = End.after(seconds), Counter[int]()
    addresses = [f"127.0.2.{number}" for number in range(1, CLIENTS + 1)]
    await asyncio.gather(*(post_greedily(url, address, body, until, seen) for address in addresses))
    return seen


@pytest.mark.parametrize(
    ("options", "most_bytes"),
    [
        pytest.param((), MOST_BYTES, id="baseline"),
        pytest.param((cv2.IMWRITE_JPEG_PROGRESSIVE, 1), MOST_BYTES + COEFFICIENT_BYTES, id="progressive"),
    ],
)
def test_ten_clients_with_the_largest_images_take_little_memory(
    options: tuple[int, ...], most_bytes: float, tier: Tier, figures: Result
) -> None:
    body = picture(*options)
    with Service(QUIET) as service:
        url = f"{service.http_url}/v1/predict"
        asyncio.run(load(url, encode(np.zeros((480, 640, 3), np.uint8)), 2.0))
        time.sleep(3.0)
        before = pss_bytes(service)
        with peak_watch(service) as peaks:
            seen = asyncio.run(load(url, body, tier.pick(6.0, 60.0)))
        begun = time.monotonic()
        while (left := pss_bytes(service) - before) > LEFT_BYTES and time.monotonic() < begun + 8:
            time.sleep(0.25)
        given_back_s = time.monotonic() - begun
    figures.note(
        memory_mb_more=(max(peaks) - before) / 1e6,
        memory_mb_left=left / 1e6,
        given_back_s=given_back_s,
        answered=seen[200],
        refused=seen[429] + seen[503],
    )
    assert seen[429] + seen[503] > 0
    assert max(peaks) - before <= most_bytes
    assert left <= LEFT_BYTES
