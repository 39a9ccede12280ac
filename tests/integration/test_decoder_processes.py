"""Tests the answers of a pool of decoder processes that crash, hang, are stopped or send nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from inference.preprocess.letterbox import Letterbox
from streamer.decoding import decoder_watchdog
from streamer.decoding.decode_job import DecoderLost, Outcome, Work
from streamer.decoding.decoder_watchdog import DECODE_CPU_LIMIT_S
from streamer.decoding.messages import Answer, Task
from streamer.decoding.refused_digests import RefusedDigests
from streamer.imaging.image_header import ImageError, ImageErrorCode, Limits
from tests.helpers.decoders import faulty_fork_server as faulty
from tests.helpers.decoders.bench import SOON_S, TARGET, Bench, image


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
    assert bench.ends.count("crash") == 1
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


async def test_a_decoder_that_hangs_is_killed_and_its_image_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_watchdog, "ELAPSED_LIMIT_S", SOON_S)
    await bench.processes()
    begun = time.monotonic()
    hanging, others = bench.submit(image(faulty.HANG)), [bench.submit(image(40, n), n) for n in range(4)]
    async with asyncio.timeout(SOON_S):
        # The other images do not wait for the one whose decoder hangs.
        assert all(isinstance(each, Answer) for each in await asyncio.gather(*others))
        assert not hanging.done()
        outcome = await hanging
    assert isinstance(outcome, ImageError)
    assert "more than 1.7 s of processor time" in outcome.detail
    assert bench.ends.count("timeout") == 1
    assert time.monotonic() - begun > DECODE_CPU_LIMIT_S


async def test_an_image_whose_decoder_fell_asleep_is_not_to_blame(bench: Bench) -> None:
    data = image(faulty.SLEEP)
    assert isinstance(await bench.decode(data), DecoderLost)
    assert not bench.pool._digests.contains(data)


async def test_an_image_is_decoded_however_little_processor_time_its_decoder_gets(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_watchdog, "ELAPSED_LIMIT_S", SOON_S)
    took_s, attempts = 0.0, itertools.count()
    async with asyncio.timeout(SOON_S):
        # Where this process gets little processor time, the decoder may run for longer between two stops.
        while took_s <= DECODE_CPU_LIMIT_S:
            waiting = bench.submit(image(faulty.COMPUTE, next(attempts)))
            decoder, begun = await bench.holder(waiting), time.monotonic()
            # Let it run for a short time in each quarter of a second, as a busy machine does.
            while decoder is not None and not waiting.done():
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
    assert await bench.holder(waiting) is not None
    for member in await bench.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            member.send_signal(signal.SIGKILL)
    async with asyncio.timeout(SOON_S):
        assert isinstance(await waiting, DecoderLost)
    assert isinstance(await bench.decode(image(41)), Answer)
    # Where a decoder gets no processor for long, the pool may have replaced it before it was killed.
    assert len(bench.ends) >= 2
    assert "killed" in bench.ends


async def test_stopped_decoders_are_replaced_when_work_waits_for_them(bench: Bench) -> None:
    stopped = await bench.processes()
    for member in stopped:
        member.send_signal(signal.SIGSTOP)
    outcome = await bench.decode(image(42))
    assert isinstance(outcome, Answer)
    assert not {member.pid for member in stopped} & {member.pid for member in await bench.processes()}


async def test_equal_images_are_all_answered_when_decoders_are_stopped_again_and_again(bench: Bench) -> None:
    waiting = []
    async with asyncio.timeout(SOON_S):
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
    assert "timeout" in bench.ends


async def test_memory_beyond_the_limit_is_refused_and_the_decoder_lives(bench: Bench) -> None:
    before = {member.pid for member in await bench.processes()}
    outcome = await bench.decode(image(faulty.HOARD))
    assert isinstance(outcome, ImageError)
    assert outcome.code is ImageErrorCode.TOO_LARGE
    assert {member.pid for member in await bench.processes()} == before


async def test_a_decoder_can_do_nothing_but_decode(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    assert {"seccomp", "no_new_privs", "rlimits"} <= set(bench.pool.protections)
    await bench.decode(image(faulty.PROBE))
    told, *_ = [record.getMessage() for record in caplog.records if "failed on an image" in record.message]
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
