"""The decoder of one stream: pictures of whole frames only, and a thread that ends."""

from __future__ import annotations

import queue
import struct
import time

import av
import numpy as np
import pytest

from streamer.protocol import Codec, DropReason
from streamer.webrtc.jitter_buffer import EncodedFrame
from streamer.webrtc.video_decoder import MAX_WAITING, Decoded, VideoDecoder

ENCODERS = {Codec.VP8: "libvpx", Codec.H264: "libx264"}


def video(codec: Codec, count: int, *, keys: tuple[int, ...] = (0,)) -> list[EncodedFrame]:
    """Return encoded frames; frame n shows grey of value 10 * n, and is a key frame where asked."""
    encoder = av.CodecContext.create(ENCODERS[codec], "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuv420p"
    encoder.framerate, encoder.bit_rate, encoder.gop_size = 30, 500_000, 1000
    encoder.options = (
        {"deadline": "realtime", "lag-in-frames": "0"} if codec is Codec.VP8 else {"tune": "zerolatency"}
    )
    frames = []
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * number, np.uint8), format="rgb24")
        frame = frame.reformat(format="yuv420p")
        frame.pts = number
        kind = av.video.frame.PictureType
        frame.pict_type = kind.I if number in keys else kind.NONE
        data = b"".join(bytes(packet) for packet in encoder.encode(frame))
        frames.append(EncodedFrame(number * 3000, data, 100.0 + number))
    return frames


class Outcomes:
    """Collects what a decoder delivers."""

    def __init__(self, codec: Codec) -> None:
        self.queue: queue.Queue[Decoded] = queue.Queue()
        self.decoder = VideoDecoder(codec, self.queue.put)

    def decode(self, frame: EncodedFrame, *, after_gap: bool = False) -> Decoded:
        assert self.decoder.put(frame, after_gap=after_gap)
        return self.queue.get(timeout=10)

    def close(self) -> None:
        self.decoder.close()
        deadline = time.monotonic() + 5
        while self.decoder.alive and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not self.decoder.alive


@pytest.fixture(params=[Codec.VP8, Codec.H264], ids=["vp8", "h264"])
def codec(request: pytest.FixtureRequest) -> Codec:
    chosen: Codec = request.param
    return chosen


def test_every_frame_gives_its_own_picture(codec: Codec) -> None:
    outcomes = Outcomes(codec)
    for number, frame in enumerate(video(codec, 5)):
        decoded = outcomes.decode(frame)
        assert decoded.picture is not None
        assert (decoded.frame, decoded.picture.width, decoded.picture.height) == (frame, 64, 48)
        pixels = decoded.picture.pixels()
        assert pixels.shape == (48, 64, 3)
        assert pixels.dtype == np.uint8
        assert abs(float(pixels.mean()) - 10 * number) < 6
    outcomes.close()


def test_after_a_gap_nothing_comes_out_until_a_key_frame(codec: Codec) -> None:
    frames = video(codec, 8, keys=(0, 5))
    outcomes = Outcomes(codec)
    reasons = [outcomes.decode(frame).reason for frame in frames[:2]]
    reasons.append(outcomes.decode(frames[3], after_gap=True).reason)
    reasons += [outcomes.decode(frame).reason for frame in frames[4:]]
    lost = DropReason.NO_KEYFRAME
    assert reasons == [None, None, lost, lost, None, None, None]
    outcomes.close()


def test_a_stream_that_begins_with_deltas_waits_for_its_key_frame(codec: Codec) -> None:
    frames = video(codec, 3, keys=(0, 2))
    outcomes = Outcomes(codec)
    assert [outcomes.decode(f).reason for f in frames[1:]] == [DropReason.NO_KEYFRAME, None]
    outcomes.close()


def test_a_damaged_frame_is_told_and_what_refers_to_it_discarded(codec: Codec) -> None:
    frames = video(codec, 4, keys=(0, 3))
    outcomes = Outcomes(codec)
    assert outcomes.decode(frames[0]).reason is None
    broken = EncodedFrame(3000, b"\x10\x02\x00" if codec is Codec.VP8 else b"\x00\x00\x01\x67", 0.0)
    answer = outcomes.decode(broken)
    assert (answer.reason, answer.picture) == (DropReason.DECODE_ERROR, None)
    assert answer.text
    assert outcomes.decode(frames[2]).reason is DropReason.NO_KEYFRAME
    assert outcomes.decode(frames[3]).reason is None
    outcomes.close()


def test_a_bomb_is_refused_from_its_header_and_the_stream_goes_on() -> None:
    outcomes = Outcomes(Codec.VP8)
    bomb = b"\x10\x02\x00\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383) + bytes(28)
    answer = outcomes.decode(EncodedFrame(0, bomb, 0.0))
    assert "16383x16383" in answer.text
    assert outcomes.decode(video(Codec.VP8, 1)[0]).picture is not None
    outcomes.close()


def test_what_waits_is_bounded_and_closing_does_not_wait() -> None:
    held: queue.Queue[None] = queue.Queue()
    decoder = VideoDecoder(Codec.VP8, lambda _: held.get())
    frame = video(Codec.VP8, 1)[0]
    taken = sum(decoder.put(frame, after_gap=False) for _ in range(MAX_WAITING * 2))
    assert MAX_WAITING <= taken <= MAX_WAITING + 1
    begun = time.monotonic()
    decoder.close()
    assert time.monotonic() - begun < 1.0  # the thread is held for ever
    assert not decoder.put(frame, after_gap=False)
    held.put(None)
    deadline = time.monotonic() + 5
    while decoder.alive and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not decoder.alive
