"""R2: a device that runs out of memory gets smaller batches, a lost device gets a new process, and no result
is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from inference.engine.memory_relief import RESTORE_AFTER_S
from tests.faults.conftest import Stubbed, Tier
from tests.faults.nonce_clients import Account, Crowd, together
from tests.faults.results import Result
from tests.helpers.load import End, http_session
from tests.helpers.service import PATIENT_POSTS
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.alone

Start = Callable[..., Stubbed]


def _runs_by_size(stub: Stubbed) -> dict[str, float]:
    """Return how many runs had at most as many frames as each bound."""
    return {
        size: stub.service.metric("object_detection_batch_size_bucket", le=size) for size in ("4.0", "8.0")
    }


async def _through(stub: Stubbed, fault: str, times: int, seconds: float) -> Account:
    until = End.after(300)
    async with http_session() as session:
        running = Crowd(streams=24, posters=6, fps=10).start(session, stub.service.http_url, until)
        await asyncio.sleep(1.0)
        stub.engine.arm(fault, times)
        await asyncio.to_thread(wait_for, lambda: not stub.engine.left, "it happens")
        await asyncio.sleep(seconds)
        until.at = 0.0
        return together(list(await asyncio.gather(*(task for _, task in running))))


@pytest.mark.timeout(300)
def test_without_memory_for_a_batch_smaller_ones_run_and_the_larger_come_back(
    stubbed: Start, tier: Tier, figures: Result
) -> None:
    stub = stubbed(model_s=0.02, INFERENCE_LANES="1", **PATIENT_POSTS)
    before = stub.service.inference.pid
    whole = asyncio.run(_through(stub, "oom", times=1, seconds=2.0))
    assert stub.service.inference.pid == before, "an allocation that failed ends no process"
    wait_for(lambda: "no memory for a batch of" in stub.service.log, "the log says so")
    assert (whole.wrong, whole.surplus, whole.lost, whole.closed) == (0, 0, 0, 0)
    assert whole.errors == {}, "the frames of the batch ran alone"
    figures.note(answers_of_others=whole.wrong, frames_failed=sum(whole.errors.values()))
    if tier.full:
        wait_for(
            lambda: "memory for the larger batches again" in stub.service.log,
            "larger batches come back",
            RESTORE_AFTER_S + 30,
        )
        figures.note(larger_batches_again_after_s=RESTORE_AFTER_S)


def test_a_lost_device_gets_a_new_process_and_no_frame_a_wrong_result(
    stubbed: Start, figures: Result
) -> None:
    stub = stubbed(model_s=0.005)
    whole = asyncio.run(_through(stub, "cuda700", times=1, seconds=3.0))
    figures.note(
        restarts=stub.service.get_json("/health")["inference_restarts"],
        answers_of_others=whole.wrong,
        connections_closed=whole.closed,
    )
    wait_for(lambda: "exit code 70" in stub.service.log, "the log says so")
    assert stub.service.get_json("/health")["inference_restarts"] == 1
    assert (whole.wrong, whole.surplus, whole.lost, whole.closed) == (0, 0, 0, 0)
    assert whole.final_errors == {}
