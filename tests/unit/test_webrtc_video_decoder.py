"""The decoder of a stream, in real processes, outputs only complete frames and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from streamer.decoding import decoder_watchdog
from streamer.decoding.refused_digests import RefusedDigests
from streamer.imaging.turning import Turning
from streamer.protocol.wire import Codec, DropReason
from streamer.webrtc.jitter_buffer import EncodedFrame
from streamer.webrtc.video_feed import VideoFeed, VideoFrame
from streamer.webrtc.video_host import SharedFrame
from streamer.webrtc.video_messages import Layout
from streamer.webrtc.video_pool import MAX_DEATHS, MAX_WAITING, DecodeOutcome, VideoDecoder, VideoPool
from streamer.webrtc.video_process import NICENESS
from tests.helpers.decoders import faulty_video_process as faulty

ENCODERS = {Codec.VP8: "libvpx", Codec.H264: "libx264"}


def video(
    codec: Codec, count: int, *, keys: tuple[int, ...] = (0,), width: int = 64, height: int = 48
) -> list[EncodedFrame]:
    """Return encoded frames; frame n has the grey value 10 * n, and is a key frame if ``keys`` contains n."""
    encoder = av.CodecContext.create(ENCODERS[codec], "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.framerate, encoder.bit_rate, encoder.gop_size = 30, 500_000, 1000
    encoder.options = (
        {"deadline": "realtime", "lag-in-frames": "0"} if codec is Codec.VP8 else {"tune": "zerolatency"}
    )
    frames = []
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 10 * number, np.uint8), format="rgb24")
        frame = frame.reformat(format="yuv420p")
        frame.pts = number
        kind = av.video.frame.PictureType
        frame.pict_type = kind.I if number in keys else kind.NONE
        data = b"".join(bytes(packet) for packet in encoder.encode(frame))
        frames.append(EncodedFrame(number * 3000, data, 100.0 + number))
    return frames


SOON_S = 60.0


class Outcomes:
    """Collects the outcomes that a decoder delivers."""

    def __init__(self, codec: Codec, pool: VideoPool) -> None:
        self.queue: asyncio.Queue[DecodeOutcome] = asyncio.Queue()
        #: Each charge to the client, in seconds of processor time.
        self.charged_s: list[float] = []
        self.decoder = VideoDecoder(codec, self.queue.put_nowait, pool, self.charged_s.append)

    async def decode(self, frame: EncodedFrame, *, after_gap: bool = False) -> DecodeOutcome:
        assert self.decoder.put(frame, after_gap=after_gap)
        async with asyncio.timeout(SOON_S):
            return await self.queue.get()


@pytest.fixture(autouse=True)
def _only_what_hangs_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give decoders more time than in production, because they yield to all other processes."""
    monkeypatch.setattr(decoder_watchdog, "PICKUP_LIMIT_S", SOON_S)
    monkeypatch.setattr(decoder_watchdog, "READY_LIMIT_S", SOON_S)
    monkeypatch.setattr(decoder_watchdog, "STOPPED_S", SOON_S)
    monkeypatch.setattr(decoder_watchdog, "ELAPSED_LIMIT_S", SOON_S)


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[VideoPool]:
    pool = VideoPool(
        2, digests=RefusedDigests(tmp_path / "digests"), module="tests.helpers.decoders.faulty_video_process"
    )
    yield pool
    pool.close()


@pytest.fixture(params=[Codec.VP8, Codec.H264], ids=["vp8", "h264"])
def codec(request: pytest.FixtureRequest) -> Codec:
    chosen: Codec = request.param
    return chosen


async def test_every_frame_gives_its_own_image(codec: Codec, pool: VideoPool) -> None:
    outcomes = Outcomes(codec, pool)
    for number, frame in enumerate(video(codec, 5)):
        decoded = await outcomes.decode(frame)
        assert decoded.decoded is not None
        assert (decoded.frame, decoded.decoded.width, decoded.decoded.height) == (frame, 64, 48)
        pixels = decoded.decoded.pixels()
        assert pixels.shape == (48, 64, 3)
        assert pixels.dtype == np.uint8
        assert abs(float(pixels.mean()) - 10 * number) < 6
    outcomes.decoder.close()


async def test_the_processor_time_of_a_frame_is_charged_and_large_ones_cost_more(
    codec: Codec, pool: VideoPool
) -> None:
    costs_s = []
    for width, height in ((64, 48), (1280, 960)):
        outcomes, frames = Outcomes(codec, pool), video(codec, 6, width=width, height=height)
        begun = time.monotonic()
        for frame in frames:
            assert (await outcomes.decode(frame)).decoded is not None
        async with asyncio.timeout(SOON_S):
            while len(outcomes.charged_s) < len(frames):
                await asyncio.sleep(0.01)
        assert len(outcomes.charged_s) == len(frames)
        assert 0 < sum(outcomes.charged_s) <= time.monotonic() - begun
        costs_s.append(sorted(outcomes.charged_s)[len(frames) // 2])
        outcomes.decoder.close()
    assert costs_s[1] > 2 * costs_s[0]


async def test_after_a_gap_nothing_comes_out_until_a_key_frame(codec: Codec, pool: VideoPool) -> None:
    frames = video(codec, 8, keys=(0, 5))
    outcomes = Outcomes(codec, pool)
    reasons = [(await outcomes.decode(frame)).reason for frame in frames[:2]]
    reasons.append((await outcomes.decode(frames[3], after_gap=True)).reason)
    reasons += [(await outcomes.decode(frame)).reason for frame in frames[4:]]
    lost = DropReason.NO_KEYFRAME
    assert reasons == [None, None, lost, lost, None, None, None]
    outcomes.decoder.close()


async def test_a_stream_that_begins_with_deltas_waits_for_its_key_frame(
    codec: Codec, pool: VideoPool
) -> None:
    frames = video(codec, 3, keys=(0, 2))
    outcomes = Outcomes(codec, pool)
    assert [(await outcomes.decode(f)).reason for f in frames[1:]] == [DropReason.NO_KEYFRAME, None]
    outcomes.decoder.close()


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


async def test_what_waits_is_bounded_and_nothing_comes_after_the_end(pool: VideoPool) -> None:
    outcomes = Outcomes(Codec.VP8, pool)
    frame = video(Codec.VP8, 1)[0]
    # The process is still starting and has read nothing.
    taken = sum(outcomes.decoder.put(frame, after_gap=False) for _ in range(MAX_WAITING * 2))
    assert taken == MAX_WAITING
    outcomes.decoder.close()
    assert not outcomes.decoder.put(frame, after_gap=False)
    await asyncio.sleep(0.5)
    assert outcomes.queue.empty()


async def test_frames_that_were_read_make_room_for_others(pool: VideoPool) -> None:
    outcomes = Outcomes(Codec.VP8, pool)
    frame = video(Codec.VP8, 1)[0]
    for _ in range(MAX_WAITING * 3):
        assert (await outcomes.decode(frame)).decoded is not None


@pytest.mark.parametrize(("width", "height"), [(64, 48), (66, 50), (63, 47), (1280, 720)])
async def test_images_of_every_size_come_out_whole(pool: VideoPool, width: int, height: int) -> None:
    outcomes = Outcomes(Codec.VP8, pool)
    for number, frame in enumerate(video(Codec.VP8, 3, width=width, height=height)):
        decoded = (await outcomes.decode(frame)).decoded
        assert decoded is not None
        pixels = decoded.pixels()
        assert pixels.shape == (height, width, 3)
        assert abs(float(pixels.mean()) - 10 * number) < 6
        assert float(pixels.std()) < 3


async def test_memory_of_images_is_used_again(pool: VideoPool) -> None:
    outcomes = Outcomes(Codec.VP8, pool)
    frame = video(Codec.VP8, 1, width=1920, height=1080)[0]
    for _ in range(400):  # 1.2 GB of decoded frames, while the process may use 512 MB
        assert (await outcomes.decode(frame)).decoded is not None


async def test_images_that_are_held_are_not_written_over(pool: VideoPool) -> None:
    outcomes = Outcomes(Codec.VP8, pool)
    held = []
    for frame in video(Codec.VP8, 20):
        decoded = (await outcomes.decode(frame)).decoded
        assert decoded is not None
        held.append(decoded)
    means = [float(decoded.pixels().mean()) for decoded in held]
    assert all(abs(mean - 10 * number) < 6 for number, mean in enumerate(means))


async def test_streams_share_processes_and_do_not_mix(pool: VideoPool) -> None:
    streams = [Outcomes(codec, pool) for codec in (Codec.VP8, Codec.H264, Codec.VP8, Codec.H264, Codec.VP8)]
    videos = [video(each.decoder.codec, 6) for each in streams]
    for number in range(6):
        outcomes = await asyncio.gather(
            *(each.decode(frames[number]) for each, frames in zip(streams, videos, strict=True))
        )
        for outcome in outcomes:
            assert outcome.decoded is not None
            assert abs(float(outcome.decoded.pixels().mean()) - 10 * number) < 6
    assert len(pool._hosts) == 2


@pytest.mark.parametrize("width", [faulty.SEGFAULT, faulty.HANG])
async def test_a_frame_that_ends_its_decoder_costs_other_streams_a_key_frame(
    pool: VideoPool, width: int
) -> None:
    pool._size = 1
    bad, good = Outcomes(Codec.VP8, pool), Outcomes(Codec.VP8, pool)
    frames = video(Codec.VP8, 6, keys=(0, 4))
    assert (await good.decode(frames[0])).decoded is not None
    crashing = video(Codec.VP8, 1, width=width)[0]
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


@dataclass
class Packet:
    """A packet that holds a whole VP8 frame."""

    sequence_number: int
    timestamp: int
    payload: bytes
    marker: int = 1
    ssrc: int = 7


class Frames:
    """Collects the frames of a feed."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[VideoFrame] = asyncio.Queue()

    def frame_decoded(self, frame: VideoFrame, _: float) -> None:
        self.queue.put_nowait(frame)

    def frame_failed(self, seq: int, reason: DropReason, text: str) -> None:
        raise AssertionError((seq, reason, text))

    def ended(self) -> None:
        return


class NoFeedback:
    """Sends nothing."""

    def send_pli(self, _: int) -> None:
        return

    def send_nack(self, *_: object) -> None:
        return


async def test_a_video_of_a_phone_held_sideways_is_made_upright(pool: VideoPool) -> None:
    """The orientation of a packet holds until another packet states another one."""
    stored = np.full((48, 64, 3), 40, np.uint8)
    stored[:24, :32] = 220  # the upper left corner
    encoder = av.CodecContext.create("libvpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.framerate = 64, 48, "yuv420p", 30
    encoder.options = {"deadline": "realtime", "lag-in-frames": "0"}
    sink = Frames()
    feed = VideoFeed(sink, pool, lambda _: None)
    expected = [
        (None, (64, 48), "upper left", 1),
        (Turning(False, 1), (48, 64), "upper right", 2),
        (None, (48, 64), "upper right", 2),
        (Turning(False, 2), (64, 48), "lower right", 3),
        (Turning(False, 3), (48, 64), "lower left", 4),
        (Turning(False, 0), (64, 48), "upper left", 5),
        (Turning(True, 0), (64, 48), "upper right", 6),
        (Turning(True, 1), (48, 64), "lower right", 7),
        (Turning(True, 2), (64, 48), "lower left", 8),
        (Turning(True, 3), (48, 64), "upper left", 9),
    ]
    for number, (turning, size, bright, epoch) in enumerate(expected):
        image = av.VideoFrame.from_ndarray(stored, format="bgr24").reformat(format="yuv420p")
        image.pts = number
        data = b"".join(bytes(packet) for packet in encoder.encode(image))
        # The first byte is a payload descriptor of RFC 7741: this packet begins the frame.
        feed.received("VP8", Packet(number, number * 3000, b"\x10" + data), NoFeedback(), turning)
        async with asyncio.timeout(SOON_S):
            frame = await sink.queue.get()
        pixels = frame.payload.pixels()
        assert (frame.payload.width, frame.payload.height) == size == pixels.shape[1::-1]
        assert (frame.rotation, frame.epoch) == (0, epoch)
        half = pixels.shape[0] // 2, pixels.shape[1] // 2
        rows, columns = (
            (("upper", slice(None, half[0])), ("lower", slice(half[0], None))),
            (
                ("left", slice(None, half[1])),
                ("right", slice(half[1], None)),
            ),
        )
        found = [f"{row} {column}" for row, y in rows for column, x in columns if pixels[y, x].mean() > 150]
        assert found == [bright]
    feed.close()


@pytest.mark.parametrize("turns", range(4))
def test_the_grey_pixels_of_a_frame_are_upright(turns: int) -> None:
    planes = np.arange(8 * 6 * 3 // 2, dtype=np.uint8)
    frame = SharedFrame(8, 6, Layout.I420, planes, lambda: None)
    frame.turn(Turning(mirrored=False, turns=turns))
    expected = np.rot90(planes[:48].reshape(6, 8), -turns)
    assert np.array_equal(frame.grey(), expected)
    assert frame.grey().flags.c_contiguous
    assert frame.grey().shape == (frame.height, frame.width)
    shades = np.repeat(np.arange(48, dtype=np.uint8), 3)
    coloured = SharedFrame(8, 6, Layout.BGR, shades, lambda: None)
    assert np.array_equal(coloured.grey(), np.arange(48, dtype=np.uint8).reshape(6, 8))
