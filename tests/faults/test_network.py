"""R18, R20: slow and broken networks, and frames that change their size, cost nobody a right result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp

from tests.bench.load import End, StreamLoad, http_session, pack
from tests.faults.conftest import Stubbed, Tier
from tests.faults.fault_proxy import FaultProxy
from tests.faults.nonce import plain_image
from tests.faults.nonce_clients import Account, Crowd, together
from tests.faults.probe_rider import ProbeRider
from tests.faults.results import Result
from tests.unit.pictures import encode, scene
from tests.webrtc_client import Track, WebrtcClient

Start = Callable[..., Stubbed]

DELAY_S, JITTER_S = 0.040, 0.010
#: 256 kbit/s.
NARROW_BYTES_PER_S = 32_000.0
RESETS = 0.02


async def _crowd_through(port: int, seconds: float) -> Account:
    async with http_session() as session:
        until = End.after(seconds)
        running = Crowd(streams=6, posters=2, fps=8).start(session, f"http://127.0.0.1:{port}", until)
        return together(list(await asyncio.gather(*(task for _, task in running))))


def test_a_long_way_costs_its_round_trip_and_no_more(stubbed: Start, tier: Tier, figures: Result) -> None:
    stub = stubbed(model_s=0.005)
    seconds = tier.pick(4.0, 20.0)

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
    # Two runs for the frame that waits behind another, besides the way itself.
    assert added_s <= 2 * (DELAY_S + JITTER_S) + 2 * near.percentile_s(0.95) + 0.02


def test_a_narrow_way_makes_no_queue(stubbed: Start, tier: Tier, figures: Result) -> None:
    stub = stubbed(model_s=0.005)
    seconds = tier.pick(8.0, 30.0)
    frames = [encode(scene(320, 240))]

    async def squeeze() -> list[float]:
        async with (
            FaultProxy(stub.service.port, delay_s=DELAY_S, bytes_per_s=NARROW_BYTES_PER_S) as proxy,
            http_session() as session,
        ):
            load = StreamLoad(f"http://127.0.0.1:{proxy.port}/v1/stream", frames)
            tally = await load.run(session, End.after(seconds))
            assert tally.balanced
            return tally.latencies_s

    latencies = asyncio.run(squeeze())
    half = len(latencies) // 2
    first, second = sorted(latencies[:half]), sorted(latencies[half:])
    figures.note(
        frames=len(latencies), median_s_first_half=first[half // 2], median_s_second_half=second[half // 2]
    )
    assert half >= 5
    assert second[half // 2] <= 1.5 * first[half // 2]


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
        # A higher share than the promise speaks of, for the number of connections to be small.
        async with (
            FaultProxy(stub.service.port, delay_s=0.005, resets=5 * RESETS) as proxy,
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
    assert set(outcomes) <= {"200", "reset"}
    assert outcomes.count("reset") <= resets
    assert stub.service.metric("object_detection_frames_in_flight") == 0


#: Width and height of frames that follow each other in one stream.
_SIZES = [(64, 64), (1, 1), (640, 480), (3, 2), (65, 63), (1, 500), (500, 1), (1280, 720), (64, 64)]


def test_frames_of_a_stream_may_change_their_size(stubbed: Start, figures: Result) -> None:
    stub = stubbed(model_s=0.001)

    async def change() -> list[tuple[int, int]]:
        seen = []
        async with (
            http_session() as session,
            session.ws_connect(f"{stub.service.http_url}/v1/stream", protocols=["detect.v1.json"]) as socket,
        ):
            await socket.send_json({"type": "hello", "streams": [{"id": 0, "codec": "png", "mode": "all"}]})
            for seq, (width, height) in enumerate(_SIZES, 1):
                await socket.send_bytes(pack(seq, encode(scene(width, height), ".png"), png=True))
                while (event := await socket.receive_json(timeout=20))["type"] != "result":
                    assert event["type"] not in ("error", "drop"), event
                seen.append((event["width"], event["height"]))
        return seen

    seen = asyncio.run(change())
    figures.note(sizes=len(_SIZES), frames_lost=0)
    assert seen == _SIZES


_VIDEO_SIZES = [(160, 120), (320, 240), (161, 121), (64, 48), (160, 120)]
_FRAMES_A_SIZE = 12


async def test_a_video_may_change_its_size(stubbed: Start, figures: Result) -> None:
    stub = await asyncio.to_thread(stubbed, model_s=0.001)

    def picture(number: int) -> object:
        width, height = _VIDEO_SIZES[min(number // _FRAMES_A_SIZE, len(_VIDEO_SIZES) - 1)]
        return scene(width, height)

    track = Track(picture, fps=12)  # type: ignore[arg-type]
    async with WebrtcClient(f"{stub.service.http_url}/v1/webrtc", track=track) as client:
        async with asyncio.timeout(40):
            while len({(m["width"], m["height"]) for m in client.of_type("result")}) < 4:
                await asyncio.sleep(0.1)
            last = len(client.of_type("result"))
            await client.wait_for("result", last + 5)
        sizes = [(m["width"], m["height"]) for m in client.of_type("result")]
    figures.note(sizes=len(set(sizes)), results=len(sizes), sent=track.number)
    assert set(sizes) <= set(_VIDEO_SIZES)
    assert len(set(sizes)) == 4
