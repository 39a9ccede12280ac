"""R17: work of a client that has disconnected is dropped and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import aiohttp
import pytest

from tests.faults.conftest import Stubbed, Tier
from tests.faults.nonce import Nonce
from tests.faults.results import Result
from tests.helpers.load import http_session
from tests.helpers.probe_rider import ProbeRider
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.alone

Start = Callable[..., Stubbed]

#: Seconds that a run takes in the warm-up, and later: long enough to send all posts and to cancel them. A run
#: that takes more than ten times as long as in the warm-up counts as hung.
WARM_UP_RUN_S, RUN_S = 0.4, 3.0
POSTS = 16


async def _post_and_go(session: aiohttp.ClientSession, url: str, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), session.post(url, data=Nonce(1, 1).image()) as answer:
            await answer.read()


def test_posts_whose_clients_have_gone_never_reach_the_model(stubbed: Start, figures: Result) -> None:
    stub = stubbed(
        model_s=WARM_UP_RUN_S, STUB_WARM_UP="1", INFERENCE_LANES="1", BATCH_MAX="1", REQUEST_QUEUE_S="60"
    )
    url = f"{stub.service.http_url}/v1/predict"
    stub.engine.model_s = RUN_S

    def all_wait() -> bool:
        return stub.service.metric("object_detection_frames_in_flight") == POSTS

    async def cancel_all() -> None:
        async with http_session() as session:
            posts = [asyncio.create_task(_post_and_go(session, url, 60)) for _ in range(POSTS)]
            await asyncio.to_thread(wait_for, all_wait, "all posts wait", timeout_s=RUN_S)
            for post in posts:
                post.cancel()
            await asyncio.gather(*posts, return_exceptions=True)

    before = stub.engine.runs
    asyncio.run(cancel_all())
    wait_for(lambda: stub.service.metric("object_detection_frames_in_flight") == 0, "slots are free")
    ran = stub.engine.runs - before
    wait_for(lambda: stub.service.metric("object_detection_requests_total", status="499") >= POSTS)
    gone = stub.service.metric("object_detection_requests_total", status="499")
    figures.note(cancelled=POSTS, run_all_the_same=ran, counted_as_gone=int(gone))
    # Only work that had begun ran: the current run, and what was submitted before the cancellation arrived.
    assert ran <= 2
    assert gone == POSTS


@pytest.mark.timeout(600)
def test_many_cancelled_posts_leave_no_task_and_no_slot(stubbed: Start, tier: Tier, figures: Result) -> None:
    stub = stubbed(model_s=0.01)
    url = f"{stub.service.http_url}/v1/predict"
    count = tier.pick(600, 10_000)

    async def cancel_many(posts: int) -> None:
        async with http_session() as session:
            for first in range(0, posts, 20):
                await asyncio.gather(
                    *(_post_and_go(session, url, 0.001 * (n % 20)) for n in range(first, first + 20))
                )

    asyncio.run(cancel_many(20))  # allocates what is created once and kept
    wait_for(lambda: stub.service.metric("object_detection_event_loop_tasks") > 0, "tasks are counted")
    time.sleep(2.5)  # once a second
    tasks = stub.service.metric("object_detection_event_loop_tasks")
    with ProbeRider(stub.service.port) as rider:
        asyncio.run(cancel_many(count))
        wait_for(lambda: stub.service.metric("object_detection_frames_in_flight") == 0, "slots are free")
    rider.ride.check()
    wait_for(lambda: stub.service.metric("object_detection_event_loop_tasks") <= tasks, "tasks end")

    def without_outcome() -> float:
        received, inferred, dropped, failed = (
            stub.service.metric(f"object_detection_frames_{name}_total", transport="http")
            for name in ("received", "inferred", "dropped", "failed")
        )
        return received - inferred - dropped - failed

    # The last posts may still have been in a socket's buffer when the client had gone.
    wait_for(lambda: without_outcome() == 0, "every frame has its outcome")
    figures.note(posts=count, tasks_more=0, frames_without_an_outcome=0)
