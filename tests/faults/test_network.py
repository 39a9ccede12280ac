"""R18: on slow and broken networks every client still gets correct results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from statistics import median

import aiohttp
import pytest

from tests.faults.conftest import Stubbed, Tier
from tests.faults.fault_proxy import FaultProxy
from tests.faults.nonce import plain_image
from tests.faults.nonce_clients import Account, Crowd, together
from tests.faults.results import Result
from tests.helpers.load import End, StreamLoad, http_session
from tests.helpers.network_namespace import PacketCapture, in_own_network, narrow_link
from tests.helpers.probe_rider import ProbeRider
from tests.helpers.service import Service
from tests.helpers.waiting import wait_for
from tests.unit.images import encode, scene

pytestmark = pytest.mark.alone

Start = Callable[..., Stubbed]

DELAY_S, JITTER_S = 0.040, 0.010
#: 256 kbit/s.
NARROW_BYTES_PER_S = 32_000.0
NARROW_KBIT = 256
RESETS = 0.02
#: Results on a narrow link, in the short form and in the long one; a frame takes about a quarter of a second.
FRAMES = (24, 110)


async def _crowd_through(port: int, seconds: float) -> Account:
    async with http_session() as session:
        until = End.after(seconds)
        running = Crowd(streams=6, posters=2, fps=8).start(session, f"http://127.0.0.1:{port}", until)
        return together(list(await asyncio.gather(*(task for _, task in running))))


def test_a_long_way_costs_its_round_trip_and_no_more(stubbed: Start, tier: Tier, figures: Result) -> None:
    stub = stubbed(model_s=0.005)
    seconds = tier.pick(3.0, 20.0)

    async def compare() -> tuple[Account, Account]:
        near = await _crowd_through(stub.service.port, seconds)
        async with FaultProxy(stub.service.port, delay_s=DELAY_S, jitter_s=JITTER_S) as proxy:
            return near, await _crowd_through(proxy.port, seconds)

    with ProbeRider(stub.service.port) as rider:
        near, far = asyncio.run(compare())
    rider.ride.check()
    added_s = far.percentile_s(0.5) - near.percentile_s(0.5)
    figures.note(
        round_trip_ms=2e3 * DELAY_S,
        median_ms_near=near.percentile_s(0.5) * 1e3,
        median_ms_far=far.percentile_s(0.5) * 1e3,
    )
    assert (far.wrong, far.lost, far.closed, far.surplus) == (0, 0, 0, 0)
    # The bound is two runs, for a frame that waits behind another, plus the network delay, plus what the
    # machine delays a server that does nothing.
    if rider.ride.is_quiet:
        allowed_s = 2 * (DELAY_S + JITTER_S) + 2 * near.percentile_s(0.95) + 0.02
        assert added_s <= allowed_s + rider.ride.control_max_s


def test_a_narrow_way_makes_no_queue(stubbed: Start, tier: Tier, figures: Result) -> None:
    stub = stubbed(model_s=0.005)
    frames = [encode(scene(320, 240))]

    async def squeeze() -> list[float]:
        async with (
            FaultProxy(stub.service.port, delay_s=DELAY_S, bytes_per_s=NARROW_BYTES_PER_S) as proxy,
            http_session() as session,
        ):
            load = StreamLoad(f"http://127.0.0.1:{proxy.port}/v1/stream", frames)
            return await _latencies(session, load, tier.pick(*FRAMES))

    _expect_no_queue(asyncio.run(squeeze()), figures)


def test_a_link_that_the_kernel_makes_narrow_makes_no_queue(
    stubbed: Start, tier: Tier, figures: Result
) -> None:
    """Repeat the previous test with a link on which the kernel queues packets (tc, token bucket filter)."""
    frames = [encode(scene(320, 240))]

    async def stream(service: Service) -> list[float]:
        async with http_session() as session:
            load = StreamLoad(f"{service.http_url}/v1/stream", frames)
            return await _latencies(session, load, tier.pick(*FRAMES))

    def squeeze(_capture: PacketCapture) -> list[float]:
        service = stubbed(model_s=0.005).service
        with narrow_link(NARROW_KBIT):
            return asyncio.run(stream(service))

    _expect_no_queue(in_own_network(squeeze), figures)


async def _latencies(session: aiohttp.ClientSession, load: StreamLoad, count: int) -> list[float]:
    """Run a stream until it has this many results; return how long each took in seconds."""
    until = End.after(100)
    running = asyncio.create_task(load.run(session, until))
    while load.tally.results < count and not until.passed:
        await asyncio.sleep(0.05)
    until.at = 0.0
    tally = await running
    assert tally.balanced
    return tally.latencies_s


def _expect_no_queue(latencies: list[float], figures: Result) -> None:
    """Assert that the last results can be as fresh as earlier ones, and that the link was the limit.

    The earlier ones are the second quarter, when the link is already full. A lost packet delays a few results
    by a second and more, because TCP sends it again. A queue delays all results, so the check uses the
    freshest of the last quarter.
    """
    quarter = len(latencies) // 4
    early, late = median(latencies[quarter : 2 * quarter]), min(latencies[3 * quarter :])
    figures.note(frames=len(latencies), median_s_second_quarter=early, least_s_last_quarter=late)
    assert quarter >= 3
    assert late <= 1.5 * early
    # The link was the limit: a frame takes at least that long on it.
    assert early > 0.2


def test_a_growing_queue_is_noticed() -> None:
    """Negative control: each frame waits for all frames before it."""
    with pytest.raises(AssertionError):
        _expect_no_queue([0.25 * (place + 1) for place in range(28)], Result("control", False))


def test_connections_that_are_reset_cost_the_others_nothing(
    stubbed: Start, tier: Tier, figures: Result
) -> None:
    stub = stubbed(model_s=0.002)
    posts = tier.pick(200, 2000)
    image = plain_image((10, 20, 30))

    async def post(session: aiohttp.ClientSession, url: str) -> str:
        try:
            async with session.post(url, data=image, headers={"Connection": "close"}) as answer:
                await answer.read()
                return str(answer.status)
        except aiohttp.ClientError:
            return "reset"

    async def break_some() -> tuple[list[str], int]:
        # A higher share than the promise states, so that fewer connections are needed.
        async with (
            FaultProxy(
                stub.service.port, delay_s=0.005, resets=5 * RESETS, reset_within_bytes=len(image)
            ) as proxy,
            http_session() as session,
        ):
            url = f"http://127.0.0.1:{proxy.port}/v1/predict"
            outcomes = []
            for _ in range(posts // 20):
                outcomes += await asyncio.gather(*(post(session, url) for _ in range(20)))
            return outcomes, proxy.reset

    with ProbeRider(stub.service.port) as rider:
        outcomes, resets = asyncio.run(break_some())
    rider.ride.check()
    figures.note(posts=posts, resets=resets, answered=outcomes.count("200"))
    assert set(outcomes) == {"200", "reset"}
    assert outcomes.count("reset") <= resets
    wait_for(
        lambda: stub.service.metric("object_detection_frames_in_flight") == 0, "every frame has its outcome"
    )
