"""No client gets the boxes of another, whatever the tests kill, cancel or overload meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import aiohttp
import psutil
import pytest

from tests.faults.conftest import Stubbed, Tier
from tests.faults.nonce import COUNTER, Nonce
from tests.faults.nonce_clients import Account, Crowd, NonceStream, together
from tests.faults.nonce_video import NonceVideo
from tests.faults.results import Result
from tests.helpers.load import End, http_session
from tests.helpers.service import is_dead
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.alone

Start = Callable[..., Stubbed]

#: Client numbers that the crowd does not use.
_FLOODER, _CANCELLER, _KEEPER = 2001, 2002, 2003
#: Client numbers of the videos, which must be below 100.
_VIDEOS = (61, 72, 83)


async def _cancel_posts(session: aiohttp.ClientSession, url: str, until: End, seed: int) -> int:
    """Post images as fast as possible and cancel each at a random moment; return how many, at least 50."""
    chance, cancelled = random.Random(seed), 0
    while cancelled < 50 or not until.passed:
        body = Nonce(_CANCELLER, cancelled % COUNTER).image()
        post = asyncio.create_task(session.post(url, data=body, headers={"Content-Type": "image/png"}))
        await asyncio.sleep(chance.uniform(0, 0.01))
        post.cancel()
        with contextlib.suppress(asyncio.CancelledError, aiohttp.ClientError):
            (await post).close()
        cancelled += 1
    return cancelled


async def _kill_decoders(stub: Stubbed, until: End) -> int:
    """Kill the newest decoder every 0.8 s; return how many were killed."""
    killed = 0
    while not until.passed:
        await asyncio.sleep(0.8)
        family = stub.service.supervisor.children(recursive=True)
        with contextlib.suppress(psutil.NoSuchProcess, ValueError):
            decoders = [each for each in family if "streamer.decoding" in " ".join(each.cmdline())]
            servers = {each.pid for each in decoders}
            forked = [each for each in decoders if each.ppid() in servers]
            max(forked, key=lambda each: each.create_time()).kill()
            killed += 1
    return killed


@dataclass(frozen=True, slots=True)
class Outcome:
    """What all clients observed, and which faults were injected."""

    images: Account
    videos: Account
    cancelled: int
    decoders_killed: int


async def _everything_at_once(
    stub: Stubbed, seconds: float, kills: int, enough: Callable[[Account], bool]
) -> Outcome:
    """Run all clients for this time, and until there is ``enough`` in the account of those without video.

    Each video has ten results at least, unless that takes two minutes.
    """
    chance = random.Random(7)
    until = End.after(120)
    base = stub.service.http_url
    async with http_session() as session:
        crowd = Crowd(streams=10, posters=6, fps=10).start(session, base, until)
        flood = NonceStream(_FLOODER, fps=300)
        keeper = NonceStream(_KEEPER, fps=10, mode="all")
        extra = [
            asyncio.create_task(stream.run(session, f"{base}/v1/stream", until)) for stream in (flood, keeper)
        ]
        watched = [NonceVideo(number, fps=10) for number in _VIDEOS]
        videos = [asyncio.create_task(video.run(f"{base}/v1/webrtc", until)) for video in watched]
        cancelling = asyncio.create_task(_cancel_posts(session, f"{base}/v1/predict", until, seed=3))
        decoders = asyncio.create_task(_kill_decoders(stub, until if kills else End.after(0)))
        await asyncio.sleep(seconds)
        for _ in range(kills):
            before = stub.service.inference
            before.send_signal(signal.SIGKILL)
            await asyncio.to_thread(wait_for, partial(is_dead, before), "it ends")
            await asyncio.to_thread(wait_for, lambda: stub.service.get("/health")[0] == 200, "ready again")
            await asyncio.sleep(chance.uniform(0.5, 1.0))
        while not until.passed:
            seen = together([account for account, _ in crowd])
            if enough(seen) and min(video.results for video in watched) >= 10:
                break
            await asyncio.sleep(0.1)
        until.at = 0.0
        accounts = list(await asyncio.gather(*(task for _, task in crowd), *extra))
        video_accounts = list(await asyncio.gather(*videos))
        return Outcome(together(accounts), together(video_accounts), await cancelling, await decoders)


def test_nobody_is_answered_with_the_boxes_of_others(stubbed: Start, tier: Tier, figures: Result) -> None:
    stub = stubbed(model_s=0.003)
    kills = tier.pick(2, 5)
    seen = asyncio.run(
        _everything_at_once(stub, tier.pick(2.0, 60.0), kills, enough=lambda images: images.results > 100)
    )
    images, videos = seen.images, seen.videos
    figures.note(
        results=images.results,
        results_of_videos=videos.results,
        answers_of_others=images.wrong + videos.wrong,
        posts_cancelled=seen.cancelled,
        inference_processes_killed=kills,
        decoders_killed=seen.decoders_killed,
        frames_without_an_outcome=images.lost,
    )
    assert images.results > 100
    assert videos.results > len(_VIDEOS)
    assert seen.cancelled >= 50
    assert (images.wrong, images.surplus, images.lost, images.closed) == (0, 0, 0, 0)
    assert (videos.wrong, videos.surplus, videos.closed) == (0, 0, 0)


def test_clients_notice_answers_of_others(stubbed: Start) -> None:
    """Negative control: a worker that ignores request ids gives answers to the wrong clients."""
    stub = stubbed(model_s=0.003, STUB_MUTATION="forget_request_ids", INFERENCE_LANES="2")
    seen = asyncio.run(_everything_at_once(stub, 3.0, kills=0, enough=lambda images: images.wrong > 100))
    assert seen.images.wrong > 0
    assert seen.videos.wrong > 0


_NONSENSE = ("nan", "bad_offset", "bad_length", "many_boxes", "bad_slot")


def test_nonsense_from_the_inference_process_reaches_nobody(stubbed: Start, figures: Result) -> None:
    stub = stubbed(model_s=0.001)

    def talk_once(fault: str) -> None:
        before = stub.service.inference
        stub.engine.arm(fault)
        wait_for(lambda: not stub.engine.left, f"{fault} happens")
        wait_for(lambda: is_dead(before), f"the process is replaced after {fault}")
        wait_for(lambda: stub.service.get("/health")[0] == 200, "ready again")

    async def talk_nonsense() -> Account:
        until = End.after(100)
        async with http_session() as session:
            crowd = Crowd(streams=6, posters=3, fps=10).start(session, stub.service.http_url, until)
            await asyncio.sleep(1.0)
            for fault in _NONSENSE:
                await asyncio.to_thread(talk_once, fault)
            await asyncio.sleep(1.0)
            until.at = 0.0
            return together(list(await asyncio.gather(*(task for _, task in crowd))))

    whole = asyncio.run(talk_nonsense())
    figures.note(
        kinds=len(_NONSENSE),
        results=whole.results,
        answers_of_others=whole.wrong,
        connections_closed=whole.closed,
    )
    assert (whole.wrong, whole.surplus, whole.lost, whole.closed) == (0, 0, 0, 0)
    assert whole.final_errors == {}
