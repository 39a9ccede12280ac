"""Tests a client that sends more than the model can run: results stay fresh, other clients lose nothing."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from bench.overload import memory_mb, together
from tests.helpers.load import End, StreamLoad, Tally, http_session
from tests.helpers.media import images
from tests.helpers.service import PATIENT_POSTS, Service

pytestmark = pytest.mark.alone

FLOOD_FPS = 200.0
#: Oldest age of a live frame when it is dispatched to the model.
MAX_AGE_MS = 500.0
#: Variation of memory that is no leak: decoder buffers, socket buffers and the garbage collector.
MEMORY_NOISE_MB = 16.0


def test_a_flood_gets_fresh_results_and_its_neighbours_lose_nothing(yolox_nano: Path) -> None:
    frames = images(8)
    # Use one inference thread, because two cores with AVX-512 would serve most of the flood.
    settings = {"MODEL_V1_PATH": str(yolox_nano), "STREAM_MIN_FPS": "0", "INFERENCE_LANES": "1"}
    with Service(settings | PATIENT_POSTS) as service:
        asyncio.run(together(service, frames, 4, FLOOD_FPS))
        memories_mb = [memory_mb(service)]
        while True:
            flooded, streamed, posted = asyncio.run(together(service, frames, 5, FLOOD_FPS))
            memories_mb.append(memory_mb(service))
            # On a slow machine the first seconds do not fill every buffer. A leak grows in each round.
            if memories_mb[-1] < memories_mb[-2] + MEMORY_NOISE_MB or len(memories_mb) > 3:
                break
        metric = service.metric
        received, outcomes = (
            metric("object_detection_frames_received_total", transport="websocket"),
            metric("object_detection_frames_inferred_total", transport="websocket")
            + metric("object_detection_frames_dropped_total", transport="websocket")
            + metric("object_detection_frames_failed_total", transport="websocket"),
        )
    assert flooded.closed == 1000
    assert flooded.balanced, flooded
    assert flooded.results > 0
    assert flooded.drops.total() > 0.1 * flooded.sent, "a flood cannot be served as a whole"
    assert set(flooded.drops) <= {"superseded", "rate", "stale"}
    assert not flooded.errors
    # The duration of a POST shows how long runs and answers take on this machine now. A queue would delay
    # nearly all results; single ones are late where the machine pauses a process for a moment.
    assert flooded.percentile_ms(0.9) < MAX_AGE_MS + posted.percentile_ms(1)
    assert memories_mb[-1] < memories_mb[-2] + MEMORY_NOISE_MB, memories_mb
    assert streamed.balanced
    # A newer frame replaces one that waits while the machine pauses a process. Where other programs use the
    # processor, the stream gets at least 80 % as many results as the flood.
    served = min(0.75 * streamed.sent, 0.8 * flooded.results)
    assert streamed.results >= served, f"a polite stream is served: {streamed.drops}, {flooded.results}"
    assert posted.results == posted.sent > 0
    assert received == outcomes


def test_every_stream_of_many_is_served_although_their_turns_are_further_apart_than_a_frame_may_age(
    yolox_nano: Path,
) -> None:
    """Test 40 streams on a model that runs 35 to 140 fps: newer frames must replace a frame that waits."""
    frames = images(8)

    async def many(service: Service) -> tuple[list[int], list[Tally]]:
        async with http_session() as session:
            loads = [StreamLoad(f"{service.http_url}/v1/stream", frames) for _ in range(40)]
            until = End.after(60)
            running = [asyncio.create_task(load.run(session, until)) for load in loads]
            # Streams that connect first have the model to themselves for a while, so this does not count.
            while min(load.tally.results for load in loads) < 1:
                assert not until.passed, "every stream gets results"
                await asyncio.sleep(0.02)
            begun = [load.tally.results for load in loads]
            turns = [0]
            while min(turns) < 4 and not until.passed:
                await asyncio.sleep(0.02)
                turns = [load.tally.results - n for load, n in zip(loads, begun, strict=True)]
            until.at = 0.0
            return sorted(turns), list(await asyncio.gather(*running))

    settings = {"MODEL_V1_PATH": str(yolox_nano), "STREAM_MIN_FPS": "0", "INFERENCE_LANES": "1"}
    with Service(settings) as service:
        turns, tallies = asyncio.run(many(service))
    assert all(tally.balanced for tally in tallies)
    assert turns[0] >= 4, turns
    assert turns[-1] <= 2 * turns[0] + 2, f"least recently served first: {turns}"


def test_rates_are_granted_anew_after_a_time_without_streams(yolox_nano: Path) -> None:
    frames = images(8)

    async def flood(service: Service) -> list[Tally]:
        # Use two streams, because a fast core can run nearly all frames of one of them.
        url = f"{service.http_url}/v1/stream"
        loads = [StreamLoad(url, frames, mode="live", fps=FLOOD_FPS) for _ in range(2)]
        async with http_session() as session:
            until = End.after(60)
            running = [asyncio.create_task(load.run(session, until)) for load in loads]
            while any((load.tally.granted_fps or FLOOD_FPS) >= FLOOD_FPS for load in loads):
                assert not until.passed, "every stream is granted a rate"
                await asyncio.sleep(0.05)
            until.at = 0.0
            return list(await asyncio.gather(*running))

    settings = {"MODEL_V1_PATH": str(yolox_nano), "STREAM_MIN_FPS": "0", "INFERENCE_LANES": "1"}
    with Service(settings) as service:
        for _ in range(2):
            tallies = asyncio.run(flood(service))
            assert all(tally.balanced for tally in tallies), tallies
            granted = [tally.granted_fps for tally in tallies]
            assert all(fps is not None and fps < FLOOD_FPS for fps in granted), granted
            time.sleep(2)  # longer than a worker keeps measuring demand after its last stream
