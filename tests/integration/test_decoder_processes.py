"""Tests the pool of decoder processes with real decoders that may crash, hang or be stopped."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import psutil
import pytest

from inference.ipc.ring import FrameRing
from inference.models.model import Placement
from inference.preprocess.letterbox import Letterbox
from streamer.decoding import decoder_watchdog
from streamer.decoding.decode_job import DecoderLost, Outcome, Work
from streamer.decoding.decoder_pool import DecoderPool
from streamer.decoding.decoder_watchdog import DECODE_CPU_LIMIT_S
from streamer.decoding.messages import Answer, Task
from streamer.decoding.refused_digests import RefusedDigests
from streamer.imaging.image_header import ImageError, ImageErrorCode, Limits
from tests.helpers.decoders import faulty_fork_server as faulty

TARGET = SimpleNamespace(input_width=64, input_height=64, placement=Placement.CENTRED, pad_value=114)
#: Time limit for anything that normally happens at once; it leaves room for a busy machine.
SOON_S = 60.0


def image(width: int, shade: int = 0, ending: str = ".jpg") -> bytes:
    """Return an encoded image of one colour."""
    encoded = cv2.imencode(ending, np.full((48, width, 3), shade, np.uint8))[1]
    return bytes(encoded.tobytes())


class Bench:
    """A pool with two decoders, and methods that send it images."""

    def __init__(self, digests: RefusedDigests) -> None:
        self.ends: list[str] = []
        self.ring = FrameRing(8, 64 * 64 * 3)
        self.pool = DecoderPool(
            2,
            input_bytes=1 << 20,
            digests=digests,
            count_end=self.ends.append,
            module="tests.helpers.decoders.faulty_fork_server",
        )

    async def start(self) -> None:
        self.pool.start()
        self.pool.attach(self.ring)
        await self.decode(image(32))

    def submit(self, data: bytes, slot: int = 0) -> asyncio.Future[Outcome]:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        work = Work(data, Task.LETTERBOX, 0, slot, TARGET, Limits(), future.set_result)
        self.pool.submit(self.ring, work)
        return future

    async def decode(self, data: bytes, slot: int = 0) -> Outcome:
        async with asyncio.timeout(SOON_S):
            return await self.submit(data, slot)

    async def processes(self, count: int = 2) -> list[psutil.Process]:
        """Wait until at least ``count`` decoders accept jobs; return the processes of all decoders."""
        async with asyncio.timeout(SOON_S):
            while self.pool.alive < count:
                await asyncio.sleep(0.02)
        group = self.pool._groups[-1]
        return [psutil.Process(member.pid) for member in group.processes.values() if member.pid]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(RefusedDigests(tmp_path / "digests"))
    try:
        await bench.start()
        yield bench
    finally:
        bench.pool.close()


async def test_pixels_are_those_of_decoding_in_place(bench: Bench) -> None:
    shades = np.random.default_rng(1).integers(0, 255, (48, 80, 3), np.uint8)
    data = cv2.imencode(".png", shades)[1].tobytes()
    answer = await bench.decode(data, slot=3)
    assert isinstance(answer, Answer)
    assert (answer.width, answer.height) == (80, 48)
    expected = np.empty((64, 64, 3), np.uint8)
    Letterbox.fit(80, 48, TARGET).write(shades, expected)
    assert np.array_equal(bench.ring.pixels(3, 64, 64), expected)


async def test_an_image_is_charged_the_processor_time_that_its_decoder_used(bench: Bench) -> None:
    decoders = await bench.processes()
    noise = np.random.default_rng(2).integers(0, 255, (240, 320, 3), np.uint8)
    data = cv2.imencode(".jpg", noise)[1].tobytes()
    used_s = -sum(sum(decoder.cpu_times()[:2]) for decoder in decoders)
    charged_ms, decoded = 0.0, 0
    # Measure about a second, because the kernel counts the processor time of processes in steps of 10 ms.
    while charged_ms < 1000 and decoded < 2000:
        answer = await bench.decode(data)
        assert isinstance(answer, Answer)
        charged_ms += answer.cpu_ms
        decoded += 1
    used_s += sum(sum(decoder.cpu_times()[:2]) for decoder in decoders)
    # A decoder spends the rest of its time on reading and answering messages.
    assert 0.6 * used_s < charged_ms / 1e3 < used_s + 0.05


async def test_an_image_that_is_none_is_refused_with_its_reason(bench: Bench) -> None:
    outcome = await bench.decode(b"GIF89a" + bytes(100))
    assert isinstance(outcome, ImageError)
    assert outcome.code is ImageErrorCode.UNSUPPORTED
    assert "GIF" in outcome.detail


async def test_bytes_that_crash_a_decoder_do_so_once(bench: Bench) -> None:
    crashing = image(faulty.SEGFAULT)
    outcomes = await asyncio.gather(*(bench.decode(crashing) for _ in range(5)), bench.decode(image(33)))
    assert all(isinstance(outcome, ImageError) for outcome in outcomes[:5])
    assert isinstance(outcomes[5], Answer)
    assert isinstance(await bench.decode(crashing), ImageError)
    assert bench.ends == ["crash"]
    await bench.processes()


async def test_optional_work_that_ends_its_decoder_does_not_make_its_bytes_refused(
    bench: Bench, tmp_path: Path
) -> None:
    await bench.processes()
    crashing = image(faulty.SEGFAULT, 11)
    outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    finished = asyncio.Event()
    bench.pool.on_finished = finished.set
    work = Work(crashing, Task.READ_CODES, 0, 0, TARGET, Limits(), outcome.set_result)
    assert bench.pool.idle == 2
    assert bench.pool.submit_optional(work)
    assert bench.pool.idle == 1
    assert isinstance(await bench.decode(image(35)), Answer)
    async with asyncio.timeout(SOON_S):
        assert isinstance(await outcome, ImageError)
        await finished.wait()
    assert not RefusedDigests(tmp_path / "digests").contains(crashing)
    await bench.processes()


async def test_another_worker_knows_the_bytes_that_crashed_a_decoder(bench: Bench, tmp_path: Path) -> None:
    crashing = image(faulty.SEGFAULT, 9)
    await bench.decode(crashing)
    assert RefusedDigests(tmp_path / "digests").contains(crashing)
    assert not RefusedDigests(tmp_path / "digests").contains(image(faulty.SEGFAULT, 10))


async def test_a_decoder_that_hangs_is_killed_and_its_image_refused(bench: Bench) -> None:
    begun = time.monotonic()
    hanging, others = bench.submit(image(faulty.HANG)), [bench.submit(image(40, n), n) for n in range(4)]
    async with asyncio.timeout(SOON_S):
        # The other images do not wait for the one whose decoder hangs.
        assert all(isinstance(each, Answer) for each in await asyncio.gather(*others))
        assert not hanging.done()
        outcome = await hanging
    assert isinstance(outcome, ImageError)
    assert "more than 1.7 s of processor time" in outcome.detail
    assert bench.ends == ["timeout"]
    assert time.monotonic() - begun > DECODE_CPU_LIMIT_S


async def test_an_image_whose_decoder_fell_asleep_is_not_to_blame(bench: Bench) -> None:
    data = image(faulty.SLEEP)
    assert isinstance(await bench.decode(data), DecoderLost)
    assert not bench.pool._digests.contains(data)


async def test_an_image_is_decoded_however_little_processor_time_its_decoder_gets(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_watchdog, "ELAPSED_LIMIT_S", SOON_S)
    group, took_s, attempts = bench.pool._groups[-1], 0.0, itertools.count()
    async with asyncio.timeout(SOON_S):
        # Where this process gets little processor time, the decoder may run for longer between two stops.
        while took_s <= DECODE_CPU_LIMIT_S:
            waiting = bench.submit(image(faulty.COMPUTE, next(attempts)))
            while not (taken := [p for p in group.processes.values() if group.line(p).job]):
                await asyncio.sleep(0.01)
            (decoder,), begun = taken, time.monotonic()
            # Let it run for a short time in each quarter of a second, as a busy machine does.
            while not waiting.done():
                os.kill(decoder.pid, signal.SIGSTOP)
                await asyncio.sleep(0.2)
                used_s = decoder.cpu_s()
                os.kill(decoder.pid, signal.SIGCONT)
                while decoder.cpu_s() < used_s + 0.02 and not waiting.done():
                    await asyncio.sleep(0.01)
            outcome = await waiting
            took_s = time.monotonic() - begun
            assert isinstance(outcome, Answer), outcome
            assert outcome.cpu_ms < DECODE_CPU_LIMIT_S * 1e3
    assert bench.ends == []


async def test_a_decoder_killed_from_outside_is_replaced_and_its_image_is_not_to_blame(bench: Bench) -> None:
    waiting = bench.submit(image(faulty.SLEEP))
    group = bench.pool._groups[-1]
    async with asyncio.timeout(SOON_S):
        while not any(group.line(process).job for process in group.processes.values()):
            await asyncio.sleep(0.01)
    for member in await bench.processes():
        member.send_signal(signal.SIGKILL)
    async with asyncio.timeout(SOON_S):
        assert isinstance(await waiting, DecoderLost)
    assert isinstance(await bench.decode(image(41)), Answer)
    # New decoders that yield to all other processes may be replaced because they leave a job waiting.
    assert bench.ends.count("killed") >= 2
    assert set(bench.ends) <= {"killed", "stuck"}


async def test_stopped_decoders_are_replaced_when_work_waits_for_them(bench: Bench) -> None:
    stopped = await bench.processes()
    for member in stopped:
        member.send_signal(signal.SIGSTOP)
    outcome = await bench.decode(image(42))
    assert isinstance(outcome, Answer)
    assert not {member.pid for member in stopped} & {member.pid for member in await bench.processes()}


async def test_equal_images_are_all_answered_when_decoders_are_stopped_again_and_again(bench: Bench) -> None:
    waiting = []
    async with asyncio.timeout(4 * SOON_S):
        for member in await bench.processes():
            member.send_signal(signal.SIGSTOP)
        waiting = [bench.submit(image(42), slot) for slot in range(3)]
        stopped = set()
        while not all(future.done() for future in waiting):
            # Stop only ready decoders: the pool waits long before it kills one that never becomes ready.
            for pid in [each.pid for each in bench.pool._groups[-1].processes.values() if each.ready]:
                if pid not in stopped and not waiting[0].done():
                    stopped.add(pid)
                    with contextlib.suppress(ProcessLookupError):  # it has just been replaced
                        os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(0.01)
    assert isinstance(waiting[0].result(), DecoderLost | Answer)
    assert all(isinstance(future.result(), Answer | DecoderLost) for future in waiting[1:])


async def test_a_decoder_stopped_in_the_middle_of_an_image_is_killed(bench: Bench) -> None:
    assert isinstance(await bench.decode(image(faulty.STOP)), DecoderLost)
    assert bench.ends == ["timeout"]


async def test_memory_beyond_the_limit_is_refused_and_the_decoder_lives(bench: Bench) -> None:
    before = {member.pid for member in await bench.processes()}
    outcome = await bench.decode(image(faulty.HOARD))
    assert isinstance(outcome, ImageError)
    assert outcome.code is ImageErrorCode.TOO_LARGE
    assert {member.pid for member in await bench.processes()} == before


async def test_a_decoder_can_do_nothing_but_decode(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    assert {"seccomp", "no_new_privs", "rlimits"} <= set(bench.pool.protections)
    await bench.decode(image(faulty.PROBE))
    (told,) = [record.getMessage() for record in caplog.records if "failed on an image" in record.message]
    assert "ALLOWED" not in told
    for attempt in ("open", "socket", "exec", "fork", "kill", "ptrace", "executable", "limit"):
        assert f"{attempt}=" in told


async def test_decoders_that_send_what_is_no_answer_are_replaced(bench: Bench) -> None:
    before = {member.pid for member in await bench.processes()}
    await bench.decode(image(faulty.GARBAGE))
    assert isinstance(await bench.decode(image(43)), Answer)
    async with asyncio.timeout(SOON_S):
        while before & {member.pid for member in await bench.processes()}:
            await asyncio.sleep(0.05)


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
    assert bench.pool._groups[-1].arena._pages.free_runs == [(0, 1 << 20)]


async def test_decoders_of_a_former_ring_finish_and_end(bench: Bench) -> None:
    former = await bench.processes()
    waiting = [bench.submit(image(45, n), n) for n in range(4)]
    old, bench.ring = bench.ring, FrameRing(4, 128 * 128 * 3)
    bench.pool.attach(bench.ring)
    old.close()
    async with asyncio.timeout(SOON_S):
        assert all(isinstance(each, Answer) for each in await asyncio.gather(*waiting))
    assert isinstance(await bench.decode(image(46)), Answer)
    psutil.wait_procs(former, timeout=SOON_S)
    assert not any(process.is_running() for process in former)
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
    assert max(now - then for now, then in zip(after, before, strict=True)) < 12 << 20
