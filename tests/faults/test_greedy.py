"""R5: polite clients notice little of a client that requests ten times the capacity."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
import pytest

from tests.faults.conftest import Stubbed, Tier
from tests.faults.nonce import Nonce
from tests.faults.nonce_clients import Account, Crowd, NonceStream, together
from tests.faults.process_watch import ProcessWatch, settled
from tests.faults.results import Result
from tests.helpers.load import End, http_session
from tests.helpers.probe_rider import ProbeRider

pytestmark = pytest.mark.alone

Start = Callable[..., Stubbed]

#: Two inference threads without batches give a capacity of 40 frames per second, so that ten times as many
#: are cheap to send.
RUN_S = 0.05
SETTINGS = {"BATCH_MAX": "1", "INFERENCE_LANES": "2"}
#: Number of concurrent POSTs of the greedy client; each is followed by the next at once.
GREEDY_POSTS = 20
GREEDY_FPS = 200.0


@dataclass(slots=True)
class Greed:
    """What the greedy client received."""

    statuses: Counter[int] = field(default_factory=Counter)
    refusals_s: list[float] = field(default_factory=list)
    without_retry_after: int = 0


async def _post_greedily(session: aiohttp.ClientSession, url: str, until: End, greed: Greed) -> None:
    body = Nonce(7, 7).image()
    while not until.passed:
        begun = time.monotonic()
        async with session.post(url, data=body, headers={"Content-Type": "image/png"}) as answer:
            await answer.read()
        greed.statuses[answer.status] += 1
        if answer.status in (429, 503):
            greed.refusals_s.append(time.monotonic() - begun)
            greed.without_retry_after += "Retry-After" not in answer.headers
            # All clients of this test share one core, so the greedy one must not use all of it.
            await asyncio.sleep(0.05)


async def _polite(base: str, seconds: float) -> Account:
    async with http_session() as session:
        running = Crowd(streams=2, posters=1, fps=5).start(session, base, End.after(seconds))
        return together(list(await asyncio.gather(*(task for _, task in running))))


async def _beside_greed(base: str, seconds: float) -> tuple[Account, Greed, Account]:
    greed, until = Greed(), End.after(seconds + 1.0)
    elsewhere = aiohttp.TCPConnector(limit=0, local_addr=("127.0.0.9", 0))
    async with aiohttp.ClientSession(connector=elsewhere) as greedy:
        posts = [
            asyncio.create_task(_post_greedily(greedy, f"{base}/v1/predict", until, greed))
            for _ in range(GREEDY_POSTS)
        ]
        flood = NonceStream(2001, fps=GREEDY_FPS)
        flooding = asyncio.create_task(flood.run(greedy, f"{base}/v1/stream", until))
        await asyncio.sleep(0.5)
        polite = await _polite(base, seconds)
        await asyncio.gather(*posts)
        return polite, greed, await flooding


def test_polite_clients_keep_their_latency_beside_a_greedy_one(
    stubbed: Start, tier: Tier, figures: Result
) -> None:
    stub = stubbed(model_s=RUN_S, **SETTINGS)
    seconds = tier.pick(6.0, 30.0)
    base = stub.service.http_url
    asyncio.run(_polite(base, 2.0))  # allocates what is created on first use
    before = asyncio.run(_polite(base, seconds / 2))
    memory = settled(stub.service)
    with ProbeRider(stub.service.port) as rider, ProcessWatch(stub.service) as watch:
        polite, greed, flood = asyncio.run(_beside_greed(base, seconds))
    rider.ride.check()
    after = asyncio.run(_polite(base, seconds / 2))
    refusals = sorted(greed.refusals_s)
    missing = polite.sent - polite.results
    figures.note(
        polite_frames=polite.sent,
        polite_frames_without_a_result=missing,
        polite_p95_ms_before=before.percentile_s(0.95) * 1e3,
        polite_p95_ms_beside=polite.percentile_s(0.95) * 1e3,
        polite_p95_ms_afterwards=after.percentile_s(0.95) * 1e3,
        greedy_posts_answered=greed.statuses[200],
        greedy_posts_refused=len(refusals),
        refusal_p50_ms=refusals[len(refusals) // 2] * 1e3 if refusals else 0.0,
        memory_mb_more=watch.growth(memory) / 1e6,
        slowdown=rider.ride.slowdown,
    )
    assert (polite.wrong, polite.lost, polite.closed, flood.wrong, flood.lost) == (0, 0, 0, 0, 0)
    assert set(greed.statuses) <= {200, 429, 503}
    assert greed.without_retry_after == 0
    if rider.ride.is_quiet:
        # The machine itself may delay any process for some time.
        stall_s = rider.ride.control_max_s
        assert missing <= max(2, 0.01 * polite.sent)
        assert polite.percentile_s(0.95) <= 2 * before.percentile_s(0.95) + 2 * RUN_S + stall_s
        assert after.percentile_s(0.95) <= 2 * before.percentile_s(0.95) + RUN_S + stall_s
    assert watch.growth(memory) <= 64e6
