"""When processes die under load, streams only pause, and every frame still gets an outcome."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers.load import End, StreamLoad, Tally, http_session, post_in_turn
from tests.helpers.media import images
from tests.helpers.service import PATIENT_POSTS, Service, is_dead
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.alone

STREAMS = 20
RECOVERY_TIMEOUT_S = 100.0


@pytest.fixture(scope="module")
def service(yolox_nano: Path) -> Iterator[Service]:
    """Start a service for this module only; the last test kills it."""
    settings = PATIENT_POSTS | {"MODEL_V1_PATH": str(yolox_nano), "STREAM_MIN_FPS": "0", "WORKERS": "1"}
    with Service(settings) as service:
        yield service


@pytest.fixture
def fragile(service: Service) -> Service:
    """Wait until the service is ready, and return it to a test that breaks it."""
    service.wait_ready()
    return service


@pytest.fixture(scope="module")
def other() -> Iterator[Service]:
    """Start another service: after five deaths in a minute, a service is not ready for ten seconds."""
    with Service({"STREAM_MIN_FPS": "0", "WORKERS": "1"}) as service:
        yield service


def restarts(service: Service) -> float:
    return service.metric("object_detection_process_restarts_total", role="inference")


@pytest.fixture(scope="module")
def frames() -> list[bytes]:
    return images(8)


def without_outcome(tally: Tally) -> int:
    return tally.sent - tally.results - tally.drops.total() - tally.errors.total()


async def stream_through(
    service: Service, frames: list[bytes], number: signal.Signals
) -> tuple[list[Tally], Tally]:
    """Run 20 streams and POSTs, send ``number`` to the inference process, and wait for results of all again.

    Returns the tallies of the streams, and that of the POSTs.
    """
    until = End.after(RECOVERY_TIMEOUT_S)
    async with http_session() as session:
        loads = [StreamLoad(f"{service.http_url}/v1/stream", frames) for _ in range(STREAMS)]
        running = [asyncio.create_task(load.run(session, until)) for load in loads]
        posting = asyncio.create_task(
            post_in_turn(session, f"{service.http_url}/v1/predict", frames, until, pause_s=0.05)
        )
        while any(load.tally.results == 0 for load in loads):
            assert not until.passed, "every stream gets results"
            await asyncio.sleep(0.05)
        victim = service.inference
        victim.send_signal(number)
        await asyncio.to_thread(wait_for, lambda: is_dead(victim), "it dies")
        # Results that were on their way still arrive, at most one for each frame without an outcome.
        enough = [tally.results + without_outcome(tally) + 1 for tally in (load.tally for load in loads)]
        while any(load.tally.results < count for load, count in zip(loads, enough, strict=True)):
            assert not until.passed, "every stream gets results again"
            await asyncio.sleep(0.05)
        until.at = time.monotonic()
        return list(await asyncio.gather(*running)), await posting


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSEGV])
def test_streams_outlive_the_inference_process(
    fragile: Service, frames: list[bytes], fault: signal.Signals
) -> None:
    before, ended = fragile.inference.pid, restarts(fragile)
    tallies, posted = asyncio.run(stream_through(fragile, frames, fault))
    assert fragile.inference.pid != before
    for tally in tallies:
        assert tally.closed == 1000, "every socket stayed open until the client's own bye"
        assert tally.balanced
        assert set(tally.errors) <= {"inference_restarting"}
    assert posted.results == posted.sent, f"a POST is tried again, not lost: {dict(posted.errors)}"
    assert restarts(fragile) == fragile.get_json("/health")["inference_restarts"] == ended + 1
    wait_for(lambda: fragile.metric("object_detection_frames_in_flight") == 0, "every frame has its outcome")


def test_in_mode_all_no_frame_is_lost_with_the_inference_process(
    fragile: Service, frames: list[bytes]
) -> None:
    async def stream_all() -> list[Tally]:
        until = End.after(RECOVERY_TIMEOUT_S)
        async with http_session() as session:
            loads = [StreamLoad(f"{fragile.http_url}/v1/stream", frames, mode="all") for _ in range(3)]
            running = [asyncio.create_task(load.run(session, until)) for load in loads]
            while any(load.tally.results < 5 for load in loads):
                assert not until.passed, "every stream gets results"
                await asyncio.sleep(0.02)
            victim = fragile.inference
            victim.send_signal(signal.SIGKILL)
            await asyncio.to_thread(wait_for, lambda: is_dead(victim), "it dies")
            before = [load.tally.results for load in loads]
            while any(load.tally.results < n + 20 for load, n in zip(loads, before, strict=True)):
                assert not until.passed, "results come again"
                await asyncio.sleep(0.05)
            until.at = time.monotonic()
            return list(await asyncio.gather(*running))

    ended = restarts(fragile)
    for tally in asyncio.run(stream_all()):
        assert tally.balanced
        assert (tally.results, tally.errors, tally.drops) == (tally.sent, Counter(), Counter())
    assert restarts(fragile) == ended + 1


def test_a_successor_is_a_fork_that_imports_nothing(other: Service) -> None:
    before, server = other.inference, other.inference_server
    assert server.num_threads() == 1, "a fork inherits the locks of other threads, and not the threads"
    before.kill()
    wait_for(lambda: is_dead(before) and other.get("/health")[0] == 200, "ready again")
    assert other.inference_server.pid == server.pid
    assert other.inference.pid != before.pid


def test_streams_outlive_the_fork_server_of_the_inference_process(
    fragile: Service, frames: list[bytes]
) -> None:
    before, ended = fragile.inference_server, restarts(fragile)
    # The fork server is stopped first, so that it cannot report the death of the inference process.
    before.suspend()
    tallies, posted = asyncio.run(stream_through(fragile, frames, signal.SIGKILL))
    assert is_dead(before)
    assert fragile.inference_server.pid != before.pid
    for tally in tallies:
        assert tally.closed == 1000
        assert tally.balanced
    assert posted.results == posted.sent, f"a POST is tried again, not lost: {dict(posted.errors)}"
    assert restarts(fragile) == ended + 1


def test_an_inference_process_that_hangs_is_replaced(other: Service) -> None:
    before = other.inference
    before.send_signal(signal.SIGSTOP)
    wait_for(lambda: is_dead(before), "it is killed")
    wait_for(lambda: other.get("/health")[0] == 200, "ready again")
    assert other.inference.pid != before.pid
    wait_for(lambda: "killing the inference process" in other.log, "the log says so")
    *_, line = [line for line in other.log.splitlines() if "killing the inference process" in line]
    assert "has stopped" in line or "hangs" in line


def test_a_killed_worker_is_replaced_and_its_lost_frames_are_accounted(
    other: Service, frames: list[bytes]
) -> None:
    async def break_off() -> None:
        async with http_session() as session:
            load = StreamLoad(f"{other.http_url}/v1/stream", frames)
            running = asyncio.create_task(load.run(session, End.after(60)))
            while load.tally.results < 5:
                await asyncio.sleep(0.05)
            other.workers[0].kill()
            await running

    before = other.workers[0].pid
    asyncio.run(break_off())
    wait_for(lambda: other.get("/health")[0] == 200, "ready again")
    assert other.workers[0].pid != before
    wait_for(lambda: other.metric("object_detection_frames_in_flight") == 0, "every frame has its outcome")
    received, inferred, dropped, failed, in_flight = (
        other.metric(f"object_detection_frames_{name}")
        for name in ("received_total", "inferred_total", "dropped_total", "failed_total", "in_flight")
    )
    assert received > 0
    assert in_flight == 0
    assert received == inferred + dropped + failed


def test_nothing_is_left_behind_when_the_supervisor_is_killed(fragile: Service) -> None:
    # Inference process with its fork server, worker, sampling process, fork server of the decoders, and at
    # least two decoders, which start after the service is ready.
    wait_for(lambda: len(fragile.supervisor.children(recursive=True)) >= 7, "every process")
    family = fragile.supervisor.children(recursive=True)
    fragile.signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(family, timeout=60)
    assert alive == []
