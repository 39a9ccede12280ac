"""Tests the life of a pool of decoder processes: its fork server, its input memory, its end."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from inference.ipc.ring import FrameRing
from streamer.decoding.decode_job import DecoderLost, Outcome, Work
from streamer.decoding.messages import Answer, Task
from streamer.decoding.refused_digests import RefusedDigests
from streamer.imaging.image_header import Limits
from tests.helpers.decoders import faulty_fork_server as faulty
from tests.helpers.decoders.bench import SOON_S, TARGET, Bench, image


async def test_a_fork_server_that_dies_is_started_again(bench: Bench) -> None:
    pid = bench.pool._supervisor._client.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(SOON_S):
        while bench.pool._supervisor._client.pid == pid or bench.pool.alive < 2:
            await asyncio.sleep(0.05)
    assert isinstance(await bench.decode(image(44)), Answer)


async def test_a_fork_server_that_dies_before_it_has_forked_is_started_again() -> None:
    bench = Bench(RefusedDigests(None))
    try:
        bench.pool.start()
        bench.pool.attach(bench.ring)
        # The pool has asked for decoders, but has none yet: this test kills the fork server while it starts.
        processes = bench.pool._groups[-1].processes.values()
        assert processes
        assert all(member.watch < 0 for member in processes)
        pid = bench.pool._supervisor._client.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert isinstance(await bench.decode(image(44)), Answer)
        assert bench.pool._supervisor._client.pid != pid
    finally:
        bench.pool.close()


async def test_more_images_than_the_input_memory_holds_wait_their_turn(bench: Bench) -> None:
    noise = np.random.default_rng(2).integers(0, 255, (300, 400, 3), np.uint8)
    # Each image has 360 KB, and the input memory holds 1 MiB.
    images = [cv2.imencode(".png", noise + n)[1].tobytes() for n in range(8)]
    async with asyncio.timeout(SOON_S):
        outcomes = await asyncio.gather(*(bench.submit(image) for image in images))
    assert all(isinstance(outcome, Answer) for outcome in outcomes)
    async with asyncio.timeout(SOON_S):
        while bench.pool._groups[-1].arena._pages.free_runs != [(0, 1 << 20)]:
            await asyncio.sleep(0.02)


async def test_decoders_of_a_former_ring_finish_and_end(bench: Bench) -> None:
    former = await bench.processes()
    waiting = [bench.submit(image(45, n), n) for n in range(4)]
    old, bench.ring = bench.ring, FrameRing(4, 128 * 128 * 3)
    bench.pool.attach(bench.ring)
    old.close()
    async with asyncio.timeout(SOON_S):
        assert all(isinstance(each, Answer) for each in await asyncio.gather(*waiting))
    assert isinstance(await bench.decode(image(46)), Answer)
    _gone, alive = await asyncio.to_thread(psutil.wait_procs, former, timeout=SOON_S)
    assert alive == []
    refused: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    bench.pool.submit(old, Work(image(47), Task.LETTERBOX, 0, 0, TARGET, Limits(), refused.set_result))
    assert isinstance(await refused, DecoderLost)


async def test_nothing_is_left_when_the_pool_is_closed(bench: Bench) -> None:
    waiting = bench.submit(image(faulty.SLEEP))
    processes = await bench.processes()
    server = psutil.Process(bench.pool._supervisor._client.pid)
    bench.pool.close()
    assert isinstance(await waiting, DecoderLost)
    _gone, alive = psutil.wait_procs([*processes, server], timeout=SOON_S)
    assert alive == []


async def test_memory_of_large_images_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Use the allocator settings of the service: with the defaults, glibc returns large blocks by itself.
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", str(64 << 20))
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", str(256 << 20))
    bench = Bench(RefusedDigests(tmp_path / "digests"))
    try:
        await bench.start()
        await grow_and_shrink(bench)
    finally:
        bench.pool.close()


async def grow_and_shrink(bench: Bench) -> None:
    processes = await bench.processes()
    before = [member.memory_full_info().uss for member in processes]
    shades = np.random.default_rng(3).integers(0, 255, (60, 80, 3), np.uint8)
    large = cv2.resize(shades, (4000, 3000), interpolation=cv2.INTER_CUBIC)
    for number in range(6):
        large[0, 0] = number
        data = cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, 20])[1]
        assert len(data) < 1 << 20
        assert isinstance(await bench.decode(data.tobytes()), Answer)
    # A decoder returns the memory to the system before it answers, so there is nothing to wait for.
    after = [member.memory_full_info().uss for member in await bench.processes()]
    assert max(after) - max(before) < 12 << 20
