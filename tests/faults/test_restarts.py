"""R11, R14, R15: a process that keeps dying is restarted with growing delays, probes report it, and clocks
may jump.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from tests.faults.conftest import QUIET, Stubbed, Tier
from tests.faults.nonce import nonce_model
from tests.faults.nonce_clients import Account, Crowd, together
from tests.faults.results import Result
from tests.helpers.load import End, http_session
from tests.helpers.probe_rider import ProbeRider
from tests.helpers.service import PATIENT_POSTS, Service
from tests.helpers.simulated_clock import SimulatedClock
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.alone

Start = Callable[..., Stubbed]

DEATHS = 6


@dataclass(frozen=True, slots=True)
class Death:
    """A death of the inference process as the log tells it."""

    at: datetime
    #: Time until the next start, in seconds, to a tenth.
    delay_s: float


def _deaths(service: Service) -> list[Death]:
    """Return the deaths of the inference process so far."""
    found = []
    for line in service.log.rpartition("\n")[0].splitlines():
        entry = json.loads(line)
        match = re.search(r"inference process ended .*; restarting in ([\d.]+) s", entry["message"])
        if match:
            found.append(Death(datetime.fromisoformat(entry["time"]), float(match[1])))
    return found


def test_a_process_that_dies_at_its_start_is_restarted_ever_later(stubbed: Start, figures: Result) -> None:
    stub = stubbed()
    with ProbeRider(stub.service.port) as rider:
        stub.engine.arm("exit_at_start", times=DEATHS - 1)
        stub.service.inference.kill()
        wait_for(lambda: stub.service.get("/health")[0] == 503, "it is not ready")
        wait_for(lambda: len(_deaths(stub.service)) >= DEATHS, "it dies several times")
        wait_for(lambda: stub.service.get("/health")[0] == 200, "ready again")
    # The replica stays alive all the time, because a restart of the pod would not help.
    rider.ride.check()
    deaths = _deaths(stub.service)
    assert len(deaths) == DEATHS
    pauses = [(later.at - earlier.at).total_seconds() for earlier, later in itertools.pairwise(deaths)]
    figures.note(deaths=DEATHS, first_pause_s=pauses[0], last_pause_s=pauses[-1])
    # Each pause is the delay before a start, which doubles, and the start-up time of a process.
    delays = [death.delay_s for death in deaths]
    assert delays == sorted(delays)
    assert delays[0] == 0
    assert delays[-1] >= 0.7
    assert all(pause > delay - 0.1 for pause, delay in zip(pauses, delays, strict=False))


@pytest.mark.parametrize("stall_s", [1.5])
def test_the_rider_sees_a_worker_that_stands_still(stubbed: Start, stall_s: float) -> None:
    """Negative control of every test that runs a `ProbeRider`."""
    stub = stubbed()
    # The supervisor answers for a worker that hangs, so both are suspended.
    still = [stub.service.supervisor, stub.service.workers[0]]
    with ProbeRider(stub.service.port) as rider:
        time.sleep(0.5)
        for process in still:
            process.suspend()
        time.sleep(stall_s)
        for process in still:
            process.resume()
        time.sleep(0.5)
    assert rider.ride.livez_max_s >= 0.8 * stall_s
    if rider.ride.control_max_s < 0.2 and rider.ride.is_quiet:
        with pytest.raises(AssertionError, match="livez took"):
            rider.ride.check()


JUMPS_S = (3600.0, -3600.0, 86_400.0, -86_400.0)


def test_clocks_that_jump_disturb_no_stream(tmp_path: Path, tier: Tier, figures: Result) -> None:
    model = nonce_model(tmp_path / "nonce.onnx")
    pause_s = tier.pick(0.8, 5.0)

    async def jump(service: Service, clock: SimulatedClock) -> Account:
        until = End.after(120)
        async with http_session() as session:
            running = Crowd(streams=6, posters=2, fps=10).start(session, service.http_url, until)
            for seconds in JUMPS_S:
                await asyncio.sleep(pause_s)
                clock.advance(seconds)
            await asyncio.sleep(pause_s)
            until.at = 0.0
            return together(list(await asyncio.gather(*(task for _, task in running))))

    with SimulatedClock(tmp_path / "clock", time.time()) as clock:
        settings = QUIET | PATIENT_POSTS | {"MODEL_V1_PATH": str(model)} | clock.environment
        with Service(settings) as service, ProbeRider(service.port) as rider:
            whole = asyncio.run(jump(service, clock))
        rider.ride.check()
    figures.note(jumps=len(JUMPS_S), results=whole.results, connections_closed=whole.closed)
    assert (whole.wrong, whole.lost, whole.closed, whole.surplus) == (0, 0, 0, 0)
    assert whole.errors == {}
