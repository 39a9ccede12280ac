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
from tests.unit.heif_files import libheif_file, picture_of, tiled
from tests.unit.hostile_builders import photograph
from tests.unit.images import encode

pytestmark = pytest.mark.alone

CLIENTS = 10
MOST_BYTES = 80e6
LEFT_BYTES = 20e6
#: Widths and heights. `LARGEST` is just below the limits of an image that is decoded at full size; the
#: others are the largest that are common in formats other than baseline JPEG.
LARGEST, PHONE, UHD = (8000, 4100), (4032, 3024), (3840, 2160)


def picture(size: tuple[int, int], ending: str, *options: int) -> bytes:
    """Return a valid image of this width and height; its details are four pixels wide."""
    width, height = size
    noise = np.random.default_rng(0).integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8)
    if ending == ".png":  # few rows differ, so that the file is small enough
        noise = noise[::16].repeat(16, axis=0)[: height // 4]
    way = cv2.INTER_NEAREST if ending == ".png" else cv2.INTER_LINEAR
    return encode(np.asarray(cv2.resize(noise, size, interpolation=way), np.uint8), ending, *options)


def phone_photo(size: tuple[int, int]) -> bytes:
    """Return a HEIC of this width and height, in tiles of 512 pixels as phones write it."""
    tile = picture_of(libheif_file(photograph(512, 512), chroma=420))
    columns, rows = -(-size[0] // 512), -(-size[1] // 512)
    return tiled([tile] * (columns * rows), columns, *size).build()


def pss_bytes(service: Service) -> int:
    """Return the memory of all processes in bytes; memory that several processes share counts once."""
    total = 0
    for process in [service.supervisor, *service.supervisor.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess, FileNotFoundError):
            total += process.memory_full_info().pss
    return total


@contextlib.contextmanager
def peak_watch(service: Service) -> Iterator[list[int]]:
    """Append the memory of the service to the yielded list many times per second during the block."""
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
            # A client that is refused before its body was read may find its connection closed. On a slow
            # machine an answer may take longer than a client waits.
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with session.post(
                    url, data=io.BytesIO(body), headers={"Content-Type": "application/octet-stream"}
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
    ("size", "ending", "options"),
    [
        pytest.param(LARGEST, ".jpg", (cv2.IMWRITE_JPEG_QUALITY, 50), id="baseline JPEG"),
        pytest.param(PHONE, ".png", (cv2.IMWRITE_PNG_COMPRESSION, 1), id="PNG"),
        pytest.param(
            PHONE,
            ".jpg",
            (cv2.IMWRITE_JPEG_QUALITY, 50, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
            id="progressive JPEG",
        ),
        pytest.param(UHD, ".webp", (cv2.IMWRITE_WEBP_QUALITY, 50), id="WebP"),
        pytest.param(PHONE, ".heic", (), id="HEIC"),
    ],
)
def test_ten_clients_with_the_largest_images_take_little_memory(
    size: tuple[int, int], ending: str, options: tuple[int, ...], tier: Tier, figures: Result
) -> None:
    body = phone_photo(size) if ending == ".heic" else picture(size, ending, *options)
    with Service(QUIET) as service:
        url = f"{service.http_url}/v1/predict"
        # Decoders that have worked before have touched their code and their part of the ring.
        asyncio.run(load(url, encode(np.zeros((1080, 1920, 3), np.uint8)), 2.5))
        time.sleep(2.0)
        before = pss_bytes(service)
        with peak_watch(service) as peaks:
            seen = asyncio.run(load(url, body, tier.pick(5.0, 60.0)))
        begun = time.monotonic()
        while (left := pss_bytes(service) - before) > LEFT_BYTES and time.monotonic() < begun + 60:
            time.sleep(0.25)
        given_back_s = time.monotonic() - begun
    figures.note(
        memory_mb_more=(max(peaks) - before) / 1e6,
        memory_mb_left=left / 1e6,
        given_back_s=given_back_s,
        answered=seen[200],
        refused=seen[429] + seen[503],
        image_mb=len(body) / 1e6,
    )
    assert not seen[413], "such images are accepted"
    assert max(peaks) - before <= MOST_BYTES
    assert left <= LEFT_BYTES
