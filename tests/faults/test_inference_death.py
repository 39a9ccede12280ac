"""R1, R1b, R1c: the inference process dies, hangs, or crashes on one frame; everything else survives."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections.abc import Callable
from functools import partial

import aiohttp
import pytest

from tests.faults.conftest import Stubbed, Tier
from tests.faults.nonce import CRASHING_COLOUR, plain_image
from tests.faults.nonce_clients import Account, Crowd, together
from tests.faults.results import Result
from tests.helpers.load import End, http_session, pack
from tests.helpers.probe_rider import ProbeRider
from tests.helpers.service import is_dead
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.alone

#: How the process ends while it reads, runs or answers; None means that the test kills it at a random time.
_PHASES = ("kill_at_read", "kill_at_run", "kill_at_reply", "segv", None)
#: Number of deaths of one service. More would reach the growing pauses between restarts, which another
#: promise covers.
KILLS = 5
#: Upper bounds that hold on a machine of any load; docs/reliability.md has the measured values.
SERVING_AGAIN_MAX_S = 10.0
TOLD_MAX_S = 2.0

Start = Callable[..., Stubbed]


async def _kill_in_turn(stub: Stubbed, crowd: Crowd, seed: int) -> tuple[Account, list[float], list[float]]:
    """Return the crowd's account, and in seconds how long it took to report each death and to serve again."""
    chance = random.Random(seed)
    until = End.after(120)
    told_s: list[float] = []
    again_s: list[float] = []
    async with http_session() as session:
        running = crowd.start(session, stub.service.http_url, until)
        accounts = [account for account, _ in running]
        while any(not account.results for account in accounts):
            assert not until.passed, "every client gets results before the first death"
            await asyncio.sleep(0.05)
        for number in range(KILLS):
            await asyncio.sleep(chance.uniform(0.2, 0.6))
            process, phase = stub.service.inference, _PHASES[number % len(_PHASES)]
            if phase is None:
                process.send_signal(signal.SIGKILL)
            else:
                stub.engine.arm(phase)
                await asyncio.to_thread(wait_for, lambda: not stub.engine.left, f"death by {phase}")
            await asyncio.to_thread(wait_for, partial(is_dead, process), "it dies")
            died = time.monotonic()
            await asyncio.to_thread(wait_for, partial(_served_after, accounts, died), "served again")
            again_s.append(min(at for a in accounts for at in a.arrivals if at > died + 0.02) - died)
            told_s += [at - died for a in accounts for at in a.error_times if died < at < died + again_s[-1]]
        until.at = time.monotonic() + 2.0
        await asyncio.gather(*(task for _, task in running))
    return together(accounts), told_s, again_s


def _in_flight_is(stub: Stubbed, count: int) -> bool:
    return stub.service.metric("object_detection_frames_in_flight") == count


def _served_after(accounts: list[Account], died: float) -> bool:
    # Answers that were in transit when the process died still arrive.
    return any(account.arrivals and account.arrivals[-1] > died + 0.02 for account in accounts)


@pytest.mark.timeout(600)
def test_streams_and_posts_live_through_deaths_of_the_inference_process(
    stubbed: Start, tier: Tier, figures: Result
) -> None:
    crowd = Crowd(streams=tier.pick(24, 80), posters=tier.pick(6, 20), fps=5.0)
    whole, told_s, again_s = Account(), [], []
    for seed in range(tier.pick(1, 4)):
        stub = stubbed(model_s=0.001)
        with ProbeRider(stub.service.port) as rider:
            account, told, again = asyncio.run(_kill_in_turn(stub, crowd, seed))
        whole.merge(account)
        told_s += told
        again_s += again
        rider.ride.check()
        assert stub.service.get_json("/health")["inference_restarts"] == KILLS
        wait_for(partial(_in_flight_is, stub, 0), "every frame has its outcome")
        stub.service.stop()
    figures.note(
        deaths=len(again_s),
        clients=crowd.streams + crowd.posters,
        frames=whole.sent,
        connections_closed=whole.closed,
        answers_of_others=whole.wrong,
        frames_without_an_outcome=whole.lost,
        served_again_s_max=max(again_s),
        told_s_max=max(told_s, default=0.0),
        livez_ms_max=rider.ride.livez_max_s * 1e3,
    )
    assert (whole.closed, whole.wrong, whole.lost, whole.surplus) == (0, 0, 0, 0)
    assert whole.final_errors == {}
    assert max(again_s) <= SERVING_AGAIN_MAX_S
    assert max(told_s, default=0.0) <= TOLD_MAX_S


def test_as_much_is_served_after_a_death_as_before(stubbed: Start, tier: Tier, figures: Result) -> None:
    stub = stubbed(model_s=0.001)
    seconds = tier.pick(3.0, 5.0)

    async def measure() -> tuple[float, float]:
        until = End.after(120)
        async with http_session() as session:
            running = Crowd(streams=20, posters=0).start(session, stub.service.http_url, until)
            accounts = [account for account, _ in running]

            async def rate() -> float:
                begun = time.monotonic()
                await asyncio.sleep(seconds)
                return together(accounts).rate(begun, time.monotonic())

            await asyncio.sleep(1.5)
            before = await rate()
            stub.service.inference.send_signal(signal.SIGKILL)
            await asyncio.sleep(5.0)
            # Where the machine pauses a process for a moment, newer frames replace the ones that wait.
            after = await rate()
            while after < 0.95 * before and not until.passed:
                after = await rate()
            until.at = time.monotonic()
            await asyncio.gather(*(task for _, task in running))
            return before, after

    before, after = asyncio.run(measure())
    figures.note(results_per_s_before=before, results_per_s_5_s_after=after)
    assert after >= 0.95 * before


def test_a_restart_is_a_pause_for_posts_and_no_error(stubbed: Start, figures: Result) -> None:
    # The limit is shorter than a restart, to show that it does not apply to images that wait for a restart.
    stub = stubbed(model_s=0.001, REQUEST_QUEUE_S="0.2")

    async def kill_once() -> Account:
        until = End.after(60)
        async with http_session() as session:
            running = Crowd(streams=0, posters=6, fps=10).start(session, stub.service.http_url, until)
            await asyncio.sleep(1.0)
            before = stub.service.inference
            stub.engine.arm("kill_at_run")
            await asyncio.to_thread(wait_for, partial(is_dead, before), "it dies")
            await asyncio.to_thread(wait_for, lambda: stub.service.get("/health")[0] == 200, "ready again")
            await asyncio.sleep(1.0)
            until.at = 0.0
            return together(list(await asyncio.gather(*(task for _, task in running))))

    whole = asyncio.run(kill_once())
    figures.note(posts=whole.sent, answered=whole.results, longest_s=max(whole.latencies_s))
    assert stub.service.get_json("/health")["inference_restarts"] == 1
    assert (whole.results, whole.errors) == (whole.sent, {})
    assert whole.wrong == 0


@pytest.mark.parametrize("fault", ["loop", "stop"])
def test_a_process_that_hangs_is_replaced(stubbed: Start, figures: Result, fault: str) -> None:
    stub = stubbed(model_s=0.001)

    async def hang() -> tuple[Account, float]:
        until = End.after(60)
        async with http_session() as session:
            running = Crowd(streams=6, posters=2).start(session, stub.service.http_url, until)
            await asyncio.sleep(1.0)
            before = stub.service.inference
            begun = time.monotonic()
            if fault == "loop":
                stub.engine.arm("hang", times=8)
            else:
                before.send_signal(signal.SIGSTOP)
            await asyncio.to_thread(wait_for, lambda: not before.is_running(), "it is killed")
            killed_s = time.monotonic() - begun
            stub.engine.disarm()
            await asyncio.to_thread(wait_for, lambda: stub.service.get("/health")[0] == 200, "ready again")
            until.at = time.monotonic() + 1.0
            return together(list(await asyncio.gather(*(task for _, task in running)))), killed_s

    with ProbeRider(stub.service.port) as rider:
        whole, killed_s = asyncio.run(hang())
    figures.note(killed_after_s=killed_s, connections_closed=whole.closed, answers_of_others=whole.wrong)
    assert (whole.closed, whole.wrong, whole.lost, whole.surplus) == (0, 0, 0, 0)
    assert killed_s <= 30.0
    # Until the hang is noticed, /livez reports the true state.
    rider.ride.check(may_refuse=True)


async def _post(session: aiohttp.ClientSession, url: str, image: bytes) -> int:
    async with session.post(url, data=image, headers={"Content-Type": "image/png"}) as answer:
        await answer.read()
        return answer.status


@pytest.mark.parametrize("fault", ["segv", "hang"])
def test_an_image_that_ends_the_process_is_found_and_blocked(
    stubbed: Start, figures: Result, fault: str
) -> None:
    stub = stubbed(model_s=0.002)
    crashing = plain_image(CRASHING_COLOUR)

    async def crash_once() -> tuple[int, list[int], Account]:
        until = End.after(60)
        async with http_session() as session:
            url = f"{stub.service.http_url}/v1/predict"
            running = Crowd(streams=8, posters=4).start(session, stub.service.http_url, until)
            await asyncio.sleep(1.0)
            stub.engine.arm(fault, times=100, colour=CRASHING_COLOUR)
            first = await _post(session, url, crashing)
            again = [await _post(session, url, crashing) for _ in range(5)]
            await asyncio.sleep(1.5)
            until.at = time.monotonic()
            whole = together(list(await asyncio.gather(*(task for _, task in running))))
            return first, again, whole

    first, again, whole = asyncio.run(crash_once())
    restarts = stub.service.get_json("/health")["inference_restarts"]
    figures.note(restarts=restarts, connections_closed=whole.closed, other_frames_refused=whole.final_errors)
    assert first == 422
    assert again == [422] * 5
    assert restarts <= 3
    assert (whole.closed, whole.wrong, whole.lost, whole.surplus) == (0, 0, 0, 0)
    assert whole.final_errors == {}
    wait_for(lambda: stub.service.get("/health")[0] == 200, "ready again")


def test_a_stream_whose_frames_end_the_process_is_refused_and_the_others_go_on(
    stubbed: Start, figures: Result
) -> None:
    stub = stubbed(model_s=0.002)

    async def crash_stream() -> tuple[int, Account]:
        until = End.after(60)
        async with http_session() as session:
            running = Crowd(streams=6, posters=2).start(session, stub.service.http_url, until)
            await asyncio.sleep(1.0)
            stub.engine.arm("segv", times=100, colour=CRASHING_COLOUR)
            refused = await _stream_crashing(session, f"{stub.service.http_url}/v1/stream")
            await asyncio.sleep(1.5)
            until.at = time.monotonic()
            return refused, together(list(await asyncio.gather(*(task for _, task in running))))

    refused, whole = asyncio.run(crash_stream())
    restarts = stub.service.get_json("/health")["inference_restarts"]
    figures.note(restarts=restarts, connections_closed=whole.closed)
    assert refused >= 10
    assert restarts <= 3
    assert (whole.closed, whole.wrong, whole.lost, whole.surplus) == (0, 0, 0, 0)
    wait_for(lambda: stub.service.get("/health")[0] == 200, "ready again")


async def _stream_crashing(session: aiohttp.ClientSession, url: str) -> int:
    """Stream frames that crash the process until ten were refused without a run; return how many were."""
    refused, until = 0, End.after(60)
    async with session.ws_connect(url, protocols=["detect.v1.json"], compress=0) as socket:
        await socket.send_json({"type": "hello", "streams": [{"id": 0, "codec": "png"}]})
        for seq in itertools.count(1):
            image = plain_image(CRASHING_COLOUR, side_px=64 + seq)
            await socket.send_bytes(pack(seq, image, png=True))
            await asyncio.sleep(0.1)
            while True:
                try:
                    event = await socket.receive_json(timeout=0.02)
                except TimeoutError:
                    break
                if event["type"] == "drop" and event["reason"] == "decode_error":
                    refused += 1
            if refused >= 10 or until.passed:
                break
    return refused


def test_a_client_that_varies_its_crashing_image_is_refused(stubbed: Start, figures: Result) -> None:
    stub = stubbed(model_s=0.002)

    async def crash_with_variations() -> tuple[list[int], Account]:
        until = End.after(60)
        # Clients without a key are distinguished by their address.
        elsewhere = aiohttp.TCPConnector(local_addr=("127.0.0.9", 0))
        async with http_session() as session, aiohttp.ClientSession(connector=elsewhere) as attacker:
            url = f"{stub.service.http_url}/v1/predict"
            running = Crowd(streams=4, posters=2).start(session, stub.service.http_url, until)
            await asyncio.sleep(1.0)
            stub.engine.arm("segv", times=100, colour=CRASHING_COLOUR)
            images = [plain_image(CRASHING_COLOUR, side_px=64 + number) for number in range(12)]
            statuses = [await _post(attacker, url, image) for image in images]
            await asyncio.sleep(1.0)
            until.at = time.monotonic()
            return statuses, together(list(await asyncio.gather(*(task for _, task in running))))

    statuses, whole = asyncio.run(crash_with_variations())
    restarts = stub.service.get_json("/health")["inference_restarts"]
    figures.note(images=len(statuses), restarts=restarts, refused=statuses.count(429))
    assert statuses[0] == 422
    assert statuses[-6:] == [429] * 6
    assert restarts <= 5
    assert (whole.closed, whole.wrong, whole.lost, whole.surplus) == (0, 0, 0, 0)
    assert whole.final_errors == {}
