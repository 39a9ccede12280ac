"""Measures POSTs at twice the load that the service can process: latency of served ones, and refusals.

First, a few connections that keep the service busy measure its capacity. Then several clients, each with its
own address, send images at twice that rate, regardless of the answers. `bench.overload` prints the result.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp
import numpy as np

from bench.fairness import session_from
from tests.helpers.service import Service

CLIENTS = 4
#: Number of connections that keep a service with a few cores busy without long waits.
_BUSY = 8


@dataclass(slots=True)
class Answers:
    """Keeps the response times by status, the durations of runs, and the failures by type of exception."""

    took_s: dict[int, list[float]] = field(default_factory=dict)
    runs_s: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def quantile_ms(self, served: bool, share: float) -> float:
        """Return a quantile in milliseconds of the served or the refused POSTs; NaN if there are none."""
        times_s = [s for status, times in self.took_s.items() if (status == 200) is served for s in times]
        return float(np.quantile(times_s, share)) * 1e3 if times_s else float("nan")

    def count(self, served: bool) -> int:
        """Return the number of served or of refused POSTs."""
        return sum(len(times) for status, times in self.took_s.items() if (status == 200) is served)


async def _post(session: aiohttp.ClientSession, url: str, image: bytes, answers: Answers) -> None:
    begun = time.monotonic()
    try:
        headers = {"Content-Type": "image/jpeg"}
        async with session.post(url, data=io.BytesIO(image), headers=headers) as answer:
            body = await answer.json()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        answers.failures[type(error).__name__] += 1
        return
    answers.took_s.setdefault(answer.status, []).append(time.monotonic() - begun)
    if answer.status == 200:
        answers.runs_s.append(body["timings_ms"]["inference"] / 1e3)


async def most_per_s(service: Service, images: list[bytes], seconds: float) -> float:
    """Return the images per second that the service answers on a few busy connections."""
    url, answers, until = f"{service.http_url}/v1/predict", Answers(), time.monotonic() + seconds

    async def in_turn(session: aiohttp.ClientSession) -> None:
        for image in itertools.cycle(images):
            if time.monotonic() > until:
                return
            await _post(session, url, image, answers)

    async with session_from("127.0.2.99") as session:
        await asyncio.gather(*(in_turn(session) for _ in range(_BUSY)))
    return answers.count(served=True) / seconds


async def at_rate(service: Service, images: list[bytes], per_s: float, seconds: float) -> Answers:
    """Send images at a fixed rate, from several clients in turn."""
    url, answers = f"{service.http_url}/v1/predict", Answers()
    sessions = [session_from(f"127.0.2.{number + 1}") for number in range(CLIENTS)]
    begun, tasks = time.monotonic(), []
    source = zip(itertools.cycle(sessions), itertools.cycle(images), strict=False)
    for number, (session, image) in enumerate(source):
        due = begun + number / per_s
        if due > begun + seconds:
            break
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.create_task(_post(session, url, image, answers)))
    await asyncio.gather(*tasks)
    for session in sessions:
        await session.close()
    return answers


def refused_by_reason(service: Service) -> dict[str, int]:
    """Return the number of refused POSTs by reason; `waited` counts those that were first admitted."""
    reasons = ("saturated", "share", "queue_full", "waited")
    name = "object_detection_refused_total"
    return {reason: int(service.metric(name, **{"class": "post", "reason": reason})) for reason in reasons}


def report(service: Service, images: list[bytes], seconds: float) -> str:
    """Measure and return the lines to print."""
    asyncio.run(most_per_s(service, images, 3.0))
    most = asyncio.run(most_per_s(service, images, seconds / 2))
    before = refused_by_reason(service)
    answers = asyncio.run(at_rate(service, images, 2 * most, seconds))
    refused = {reason: count - before[reason] for reason, count in refused_by_reason(service).items()}
    return (
        f"POSTs         {most:.0f} a second are served without refusals;"
        f" twice as many came for {seconds:.0f} s\n"
        f"POSTs         served {answers.count(served=True) / seconds:.0f} a second,"
        f" p50 {answers.quantile_ms(True, 0.5):.0f} ms, p99 {answers.quantile_ms(True, 0.99):.0f} ms;"
        f" a run takes {np.median(answers.runs_s or [np.nan]) * 1e3:.0f} ms\n"
        f"POSTs         refused {answers.count(served=False)}, p50 {answers.quantile_ms(False, 0.5):.0f} ms,"
        f" p99 {answers.quantile_ms(False, 0.99):.0f} ms, by reason {refused},"
        f" failures {dict(answers.failures)}\n"
    )
