"""Damaged videos and dead decoders cost only the streams that they must cost, and leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from streamer.protocol.wire import Codec, DropReason
from streamer.webrtc import video_pool
from streamer.webrtc.jitter_buffer import EncodedFrame
from streamer.webrtc.video_pool import MAX_DEATHS, VideoPool
from streamer.webrtc.video_process import NICENESS
from tests.helpers.decoders import faulty_video_process as faulty
from tests.helpers.video_decoding import SOON_S, Outcomes, both_codecs, make_pool, video


@pytest.fixture
async def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[VideoPool]:
    made = make_pool(tmp_path, monkeypatch)
    yield made
    made.close()


@both_codecs
async def test_a_damaged_frame_is_told_and_what_refers_to_it_discarded(codec: Codec, pool: VideoPool) -> None:
    frames = video(codec, 4, keys=(0, 3))
    outcomes = Outcomes(codec, pool)
    assert (await outcomes.decode(frames[0])).reason is None
    broken = EncodedFrame(3000, b"\x10\x02\x00" if codec is Codec.VP8 else b"\x00\x00\x01\x67", 0.0)
    answer = await outcomes.decode(broken)
    assert (answer.reason, answer.decoded) == (DropReason.DECODE_ERROR, None)
    assert answer.text
    assert (await outcomes.decode(frames[2])).reason is DropReason.NO_KEYFRAME
    assert (await outcomes.decode(frames[3])).reason is None
    outcomes.decoder.close()


async def test_a_bomb_is_refused_from_its_header_and_the_stream_goes_on(pool: VideoPool) -> None:
    outcomes = Outcomes(Codec.VP8, pool)
    bomb = b"\x10\x02\x00\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383) + bytes(28)
    answer = await outcomes.decode(EncodedFrame(0, bomb, 0.0))
    assert "16383x16383" in answer.text
    assert (await outcomes.decode(video(Codec.VP8, 1)[0])).decoded is not None
    outcomes.decoder.close()


@pytest.mark.parametrize("width", [faulty.SEGFAULT, faulty.HANG])
async def test_a_frame_that_ends_its_decoder_costs_other_streams_a_key_frame(
    pool: VideoPool, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool._size = 1
    bad, good = Outcomes(Codec.VP8, pool), Outcomes(Codec.VP8, pool)
    frames = video(Codec.VP8, 6, keys=(0, 4))
    assert (await good.decode(frames[0])).decoded is not None
    crashing = video(Codec.VP8, 1, width=width)[0]
    with monkeypatch.context() as patch:
        # On a busy machine a decoder, which yields to all others, would not use a second within a minute.
        patch.setattr(video_pool, "FRAME_CPU_LIMIT_S", 0.1)
        outcome = await bad.decode(crashing)
    assert (outcome.reason, outcome.decoded) == (DropReason.DECODE_ERROR, None)
    assert (await good.decode(frames[1])).reason is DropReason.NO_KEYFRAME
    assert (await good.decode(frames[4])).decoded is not None
    # The same bytes end a decoder only once.
    before = pool._supervisor._client.pid, [host.group for host in pool._hosts]
    assert (await bad.decode(crashing)).text
    assert (await good.decode(frames[5])).decoded is not None
    assert before == (pool._supervisor._client.pid, [host.group for host in pool._hosts])


async def test_a_stream_that_ends_one_decoder_after_the_other_is_decoded_no_more(pool: VideoPool) -> None:
    bad = Outcomes(Codec.VP8, pool)
    crashing_frames = video(Codec.VP8, MAX_DEATHS + 2, keys=tuple(range(9)), width=faulty.SEGFAULT)
    for crashing in crashing_frames:
        assert (await bad.decode(crashing)).reason is DropReason.DECODE_ERROR
    assert (await bad.decode(video(Codec.VP8, 1)[0])).decoded is None


async def test_a_decoder_killed_from_outside_is_replaced(pool: VideoPool) -> None:
    outcomes = Outcomes(Codec.VP8, pool)
    frames = video(Codec.VP8, 3, keys=(0, 1, 2))
    assert (await outcomes.decode(frames[0])).decoded is not None
    (host,) = pool._hosts
    (member,) = host.group.processes.values()
    process = psutil.Process(member.pid)
    os.kill(member.pid, signal.SIGKILL)
    psutil.wait_procs([process], timeout=SOON_S)
    async with asyncio.timeout(SOON_S):
        while pool._hosts == [host]:
            await asyncio.sleep(0.02)
    assert (await outcomes.decode(frames[1])).decoded is not None
    assert not pool._digests.contains(frames[0].data)


async def test_a_process_without_streams_ends(pool: VideoPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.webrtc.video_pool._IDLE_S", 0.5)
    outcomes = Outcomes(Codec.VP8, pool)
    assert (await outcomes.decode(video(Codec.VP8, 1)[0])).decoded is not None
    (member,) = pool._hosts[0].group.processes.values()
    process = psutil.Process(member.pid)
    outcomes.decoder.close()
    async with asyncio.timeout(SOON_S):
        while pool._hosts:
            await asyncio.sleep(0.05)
    assert psutil.wait_procs([process], timeout=SOON_S)[1] == []
    gc.collect()


async def test_video_decoders_are_locked_in(pool: VideoPool) -> None:
    outcomes = Outcomes(Codec.VP8, pool)
    assert (await outcomes.decode(video(Codec.VP8, 1)[0])).decoded is not None
    assert {"seccomp", "no_new_privs", "rlimits"} <= set(pool._supervisor.protections)


async def test_video_decoders_yield_to_model_runs(pool: VideoPool) -> None:
    outcomes = Outcomes(Codec.VP8, pool)
    assert (await outcomes.decode(video(Codec.VP8, 1)[0])).decoded is not None
    (member,) = next(host for host in pool._hosts if host.streams).group.processes.values()
    own = os.getpriority(os.PRIO_PROCESS, 0)
    assert os.getpriority(os.PRIO_PROCESS, member.pid) == min(19, own + NICENESS)
