"""The decoder of a stream, in real processes, outputs only complete frames, each with its own image."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest

from streamer.imaging.turning import Turning
from streamer.protocol.wire import Codec, DropReason
from streamer.webrtc.video_feed import VideoFeed, VideoFrame
from streamer.webrtc.video_pool import MAX_WAITING, VideoPool
from tests.helpers.video_decoding import SOON_S, Outcomes, both_codecs, make_pool, video


@pytest.fixture
async def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[VideoPool]:
    made = make_pool(tmp_path, monkeypatch)
    yield made
    made.close()


@both_codecs
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


@both_codecs
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


@both_codecs
async def test_after_a_gap_nothing_comes_out_until_a_key_frame(codec: Codec, pool: VideoPool) -> None:
    frames = video(codec, 8, keys=(0, 5))
    outcomes = Outcomes(codec, pool)
    reasons = [(await outcomes.decode(frame)).reason for frame in frames[:2]]
    reasons.append((await outcomes.decode(frames[3], after_gap=True)).reason)
    reasons += [(await outcomes.decode(frame)).reason for frame in frames[4:]]
    lost = DropReason.NO_KEYFRAME
    assert reasons == [None, None, lost, lost, None, None, None]
    outcomes.decoder.close()


@both_codecs
async def test_a_stream_that_begins_with_deltas_waits_for_its_key_frame(
    codec: Codec, pool: VideoPool
) -> None:
    frames = video(codec, 3, keys=(0, 2))
    outcomes = Outcomes(codec, pool)
    assert [(await outcomes.decode(f)).reason for f in frames[1:]] == [DropReason.NO_KEYFRAME, None]
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
