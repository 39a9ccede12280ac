"""R1d: with several engines, the death of one costs the frames that it held, and no stream its service."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.faults.conftest import Stubbed
from tests.faults.nonce_clients import Account, Crowd, together
from tests.faults.results import Result
from tests.helpers.load import End, http_session
from tests.helpers.probe_rider import ProbeRider
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.alone

#: Upper bound of the pause of any client, which holds on a machine of any load; it is to be below 2 s.
PAUSE_MAX_S = 10.0

Start = Callable[..., Stubbed]


def _engine_states(stub: Stubbed) -> list[str]:
    return [engine["status"] for engine in stub.service.get_json("/health")["engines"]]


def _runs(stub: Stubbed) -> list[float]:
    name = "object_detection_inference_duration_seconds_count"
    return [stub.service.metric(name, version="v1", engine=str(index)) for index in range(2)]


def _all_have_run(stub: Stubbed, before: list[float]) -> bool:
    return all(now > then for now, then in zip(_runs(stub), before, strict=True))


async def _kill_one(stub: Stubbed, crowd: Crowd) -> tuple[list[Account], float]:
    """Return the accounts of a crowd under which one engine dies, and when it died."""
    until = End.after(120)
    async with http_session() as session:
        running = crowd.start(session, stub.service.http_url, until)
        await asyncio.to_thread(wait_for, partial(_all_have_run, stub, [0.0, 0.0]), "both engines run frames")
        died = time.monotonic()
        stub.service.engines[0].send_signal(signal.SIGKILL)
        await asyncio.to_thread(
            wait_for, lambda: stub.service.get_json("/health")["inference_restarts"] == 1, "it has died"
        )
        await asyncio.to_thread(wait_for, lambda: _engine_states(stub) == ["ok", "ok"], "it is back")
        before = await asyncio.to_thread(_runs, stub)
        await asyncio.to_thread(wait_for, partial(_all_have_run, stub, before), "both run frames again")
        until.at = time.monotonic() + 1.0
        await asyncio.gather(*(task for _, task in running))
    return [account for account, _ in running], died


def test_one_of_two_engines_dies_under_load_and_the_other_one_serves_on(
    stubbed: Start, figures: Result
) -> None:
    stub = stubbed(model_s=0.01, DEVICE="cpu,cpu")
    assert [engine["device"] for engine in stub.service.get_json("/health")["engines"]] == ["cpu", "cpu"]
    with ProbeRider(stub.service.port) as rider:
        accounts, died = asyncio.run(_kill_one(stub, Crowd(streams=12, posters=4)))
    rider.ride.check()
    wait_for(
        lambda: stub.service.metric("object_detection_frames_in_flight") == 0, "every frame has its outcome"
    )
    whole = together(accounts)
    pauses_s = [
        later - earlier
        for account in accounts
        for earlier, later in zip(account.arrivals, account.arrivals[1:], strict=False)
        if later > died and earlier < died + 5.0
    ]
    figures.note(
        frames=whole.sent,
        connections_closed=whole.closed,
        answers_of_others=whole.wrong,
        frames_without_an_outcome=whole.lost,
    )
    assert (whole.closed, whole.wrong, whole.lost, whole.surplus) == (0, 0, 0, 0)
    assert whole.final_errors == {}
    assert all(account.arrivals[-1] > died for account in accounts)
    assert max(pauses_s) <= PAUSE_MAX_S
