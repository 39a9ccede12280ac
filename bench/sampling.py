"""Measures how much the collection of samples slows down detection.

Three services run side by side: without sampling, with sampling, and with sampling into a store that never
answers. The same images are POSTed to the three in turn, so that other load on the machine affects all of
them alike. Each line gives p50 and p99 of the response time and, in brackets, their ratio to the service
without sampling: 1.0 means that sampling costs a request nothing. It also gives the number of samples that
were kept, which must not be 0 where sampling is on.

Before that, one line compares what the search for duplicates costs a candidate in the sampling process, which
is describing one object of 24 px and comparing it with a full memory, with decoding its JPEG of 1280 x 720.

Run it with ``make bench BENCH=sampling``.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import cv2
import numpy as np

from streamer.sampling.appearance import describe
from streamer.sampling.appearance_memory import REMEMBERED, AppearanceMemories
from tests.helpers.duplicate_worlds import WIDTH, belt, objects
from tests.helpers.media import images, model
from tests.helpers.service import Service
from tests.helpers.stores.faulty import FaultyS3

_JPEG = {"Content-Type": "image/jpeg"}
_EAGER = {
    "UNCERTAINTY_THRESHOLD": "0",
    "SAMPLES_INTERVAL_S": "1",
    "SAMPLES_SPACING_S": "0",
    "SAMPLES_STREAM_PER_HOUR": "100000",
    "SAMPLES_PER_HOUR": "100000",
    "SAMPLES_PER_DAY": "1000000",
}


#: An object so small that its image is not reduced before it is described: 24 px.
SMALL_BOX = np.array([[600, 300, 624, 324, 0.5, 0]], np.float32)


async def measure(services: dict[str, Service], bodies: list[bytes], rounds: int) -> dict[str, list[float]]:
    """POST images to each service in turn; return the response times of each service in seconds."""
    times: dict[str, list[float]] = {name: [] for name in services}
    async with aiohttp.ClientSession() as session:
        for number in range(rounds):
            body = bodies[number % len(bodies)]
            for name, service in services.items():
                begun = time.perf_counter()
                async with session.post(f"{service.http_url}/v1/predict", data=body, headers=_JPEG) as answer:
                    await answer.read()
                    assert answer.status == 200
                times[name].append(time.perf_counter() - begun)
    return times


def duplicates_ms(rounds: int = 60) -> tuple[float, float]:
    """Return the median processor time of the search for duplicates and of decoding, in milliseconds.

    Run it in a process with one thread for linear algebra, as the sampling process has.
    """
    cv2.setNumThreads(1)
    frames = list(belt(objects("textured disks", REMEMBERED, 1), "plain", 1))
    shown = [describe(image, boxes, WIDTH) for image, boxes in frames]
    memories = AppearanceMemories()
    for appearance in shown:
        memories.add("gate", appearance)
    image = np.asarray(cv2.resize(frames[0][0], (1280, 720)), np.uint8)
    encoded = cv2.imencode(".jpg", image)[1]

    def search() -> None:
        memories.novelty("gate", describe(image, SMALL_BOX, 1280))

    def decode() -> None:
        cv2.imdecode(encoded, cv2.IMREAD_COLOR)

    times = []
    for step in (search, decode):
        found = []
        for _ in range(rounds):
            begun = time.thread_time()
            step()
            found.append(time.thread_time() - begun)
        times.append(float(np.median(found)) * 1e3)
    return times[0], times[1]


def main() -> None:
    """Print the quantiles and their ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="yolox_nano", help="null, yolox_nano (if shared) or a path")
    parser.add_argument("--rounds", type=int, default=600, help="images that each service gets")
    arguments = parser.parse_args()
    # NumPy reads this when it is imported, so another process measures.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        search_ms, decode_ms = pool.apply(duplicates_ms)
    sys.stdout.write(
        f"duplicates {search_ms:.1f} ms a candidate, {search_ms / decode_ms:.2f} of decoding it\n"
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        base = {"MODEL_V1_PATH": str(model(arguments.model, folder))}
        store = stack.enter_context(FaultyS3(share=1.0, faults=("hang",)))
        settings = {
            "off": {"SAMPLING": "0"},
            "on": _EAGER,
            "on, store hangs": _EAGER | store.environment,
        }
        services = {name: stack.enter_context(Service(base | own)) for name, own in settings.items()}
        times = asyncio.run(measure(services, images(), arguments.rounds))
        taken = {name: service.get_json("/health")["samples"] for name, service in services.items()}
    quantiles = {name: np.quantile(values, (0.5, 0.99)) * 1e3 for name, values in times.items()}
    for name, (p50, p99) in quantiles.items():
        ratios = quantiles[name] / quantiles["off"]
        sys.stdout.write(
            f"{name:16} p50 {p50:6.1f} ms ({ratios[0]:.3f})  p99 {p99:6.1f} ms ({ratios[1]:.3f})"
            f"  {taken[name]} samples\n"
        )


if __name__ == "__main__":
    main()
