"""The metrics of capacity and demand agree with what clients ask for and with what really runs.

All bounds are wide, because other processes may take the cores at any time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.helpers.load import End, StreamLoad, Tally, http_session
from tests.helpers.load_metrics import PATIENCE_S, fps, until
from tests.helpers.service import PATIENT, Service
from tests.unit.images import encode, scene

#: A busy machine needs minutes to start the service and to send enough frames.
pytestmark = [pytest.mark.alone, pytest.mark.timeout(480)]

IMAGE = encode(scene(320, 240))
#: Measured and counted rates may differ by this factor.
FACTOR = 2.0
INFERRED = "object_detection_frames_inferred_total"


def capacities(service: Service) -> list[float]:
    """Return all samples of the capacity of v1, of which there may be only one."""
    families = text_string_to_metric_families(service.get("/metrics")[1].decode())
    return [
        sample.value
        for family in families
        if family.name == "object_detection_capacity_frames_per_second"
        for sample in family.samples
        if sample.labels == {"version": "v1"}
    ]


@asynccontextmanager
async def streaming(service: Service, count: int, each_fps: float) -> AsyncIterator[list[Tally]]:
    """Let ``count`` streams declare a rate and send at that rate meanwhile."""
    end, url = End.after(10 * PATIENCE_S), f"{service.http_url}/v1/stream"
    async with http_session() as session:
        loads = [StreamLoad(url, [IMAGE], fps=each_fps, declared_fps=each_fps) for _ in range(count)]
        tasks = [asyncio.create_task(load.run(session, end)) for load in loads]
        try:
            yield [load.tally for load in loads]
        finally:
            end.at = 0.0
            await asyncio.gather(*tasks, return_exceptions=True)


async def rates(service: Service, tallies: list[Tally], seconds: float) -> tuple[float, float]:
    """Return the frames per second that clients sent and that ran in the next ``seconds``."""
    begun, sent = time.monotonic(), sum(tally.sent for tally in tallies)
    ran = await asyncio.to_thread(service.metric, INFERRED)
    await asyncio.sleep(seconds)
    more = await asyncio.to_thread(service.metric, INFERRED) - ran
    passed_s = time.monotonic() - begun
    return (sum(tally.sent for tally in tallies) - sent) / passed_s, more / passed_s


def near(value: float, other: float) -> bool:
    return other / FACTOR <= value <= other * FACTOR


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_capacity_and_demand_from_idle_to_overload_and_back(workers: str, full: bool) -> None:
    if workers == "1" and not full:
        pytest.skip("two workers do all that one does, and add up what they measure; `--full` runs both")
    with Service(PATIENT | {"WORKERS": workers}, bundled=True) as service:
        await until(lambda: len(capacities(service)) == 1, "an idle replica has its capacity")
        idle_fps = capacities(service)[0]
        assert idle_fps > 0
        assert fps(service, "demand") == fps(service, "granted") == fps(service, "refused") == 0
        await asyncio.sleep(3)
        assert capacities(service) == [idle_fps], "it does not change while nothing runs"

        async with streaming(service, 4, 0.5) as tallies:
            await until(lambda: near(fps(service, "demand"), 2.0), "four streams ask for 2 fps together")
            sent_fps, _ = await rates(service, tallies, 4)
            asked_fps = max(sent_fps, 1.0)
            await until(
                lambda: near(fps(service, "demand", **{"class": "live"}), asked_fps), "demand is what is sent"
            )
            await until(lambda: near(fps(service, "granted"), asked_fps), "all of it is granted")
        await until(lambda: fps(service, "demand") == 0, "closed streams ask for nothing")

        # Each of many streams sends a sixth of the capacity that an undisturbed replica has, but 25 at most:
        # the load client needs processor time, too.
        each_fps = min(25.0, max(5.0, idle_fps / 6))
        async with streaming(service, 12, each_fps) as tallies:
            deadline = time.monotonic() + PATIENCE_S
            while True:  # smoothed values follow the load slowly, and the speed of a busy machine may change
                sent_fps, ran_fps = await rates(service, tallies, 6)
                demand_fps, capacity_fps = fps(service, "demand"), capacities(service)[0]
                least_fps, most_fps = sent_fps / FACTOR, FACTOR * 12 * each_fps  # the client may lag behind
                # If the machine is fast, the replica is not saturated, and could run more than it does.
                saturated = ran_fps < sent_fps / FACTOR
                measured = near(capacity_fps, ran_fps) if saturated else capacity_fps > ran_fps / FACTOR
                if least_fps <= demand_fps <= most_fps and measured:
                    break
                assert time.monotonic() < deadline, (sent_fps, ran_fps, demand_fps, capacity_fps)
        await until(lambda: fps(service, "demand") == 0, "closed streams ask for nothing")
        assert len(capacities(service)) == 1
