"""R15: a replica whose queue of POSTs stays full turns new clients away for a while."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from tests.faults.conftest import Stubbed
from tests.faults.nonce_clients import NoncePoster
from tests.faults.results import Result
from tests.helpers.load import End, http_session
from tests.helpers.waiting import wait_for

Start = Callable[..., Stubbed]

QUEUE = 20


def test_while_posts_find_no_room_the_replica_is_not_ready_and_alive(stubbed: Start, figures: Result) -> None:
    # The queue is short in images but may be long in time, so it is always full.
    stub = stubbed(
        model_s=0.2, BATCH_MAX="1", REQUEST_QUEUE_MAX=str(QUEUE), REQUEST_QUEUE_S="60", REQUEST_TIMEOUT_S="60"
    )
    service = stub.service

    async def post_too_much() -> None:
        until = End.after(60)
        async with http_session() as session:
            posters = [NoncePoster(number, rate=10) for number in range(QUEUE + 12)]
            running = [
                asyncio.create_task(poster.run(session, f"{service.http_url}/v1/predict", until))
                for poster in posters
            ]
            await asyncio.to_thread(wait_for, lambda: not is_ready(), "it is not ready")
            assert (await asyncio.to_thread(service.get, "/livez"))[0] == 200
            until.at = 0.0
            accounts = await asyncio.gather(*running)
        assert sum(account.results for account in accounts) > 0
        assert {code for account in accounts for code in account.errors} <= {"503"}

    seen: list[tuple[int, str]] = []

    def is_ready() -> bool:
        status, body = service.get("/health")
        seen.append((status, json.loads(body)["status"] if status else ""))
        return status in (0, 200)

    asyncio.run(post_too_much())
    assert seen[-1] == (503, "saturated")
    wait_for(lambda: service.get("/health")[0] == 200, "it is ready again")
    figures.note(restarts=service.metric("object_detection_process_restarts_total"))
    assert service.metric("object_detection_process_restarts_total") == 0
