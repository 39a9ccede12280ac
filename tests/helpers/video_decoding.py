"""Encodes videos for tests, and decodes them frame by frame in real decoder processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import av
import numpy as np
import pytest

from streamer.decoding import decoder_watchdog
from streamer.decoding.refused_digests import RefusedDigests
from streamer.protocol.wire import Codec
from streamer.webrtc.jitter_buffer import EncodedFrame
from streamer.webrtc.video_pool import DecodeOutcome, VideoDecoder, VideoPool

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


#: How long a test waits for an outcome, in seconds. Decoders yield to all other processes.
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


#: Runs a test with each codec, its argument ``codec``.
both_codecs = pytest.mark.parametrize("codec", [Codec.VP8, Codec.H264], ids=["vp8", "h264"])


def make_pool(folder: Path, monkeypatch: pytest.MonkeyPatch) -> VideoPool:
    """Return a pool of two decoders that crash or hang on videos of certain widths.

    They get more time than in production, because they yield to all other processes: only what hangs is to
    be replaced.
    """
    monkeypatch.setattr(decoder_watchdog, "PICKUP_LIMIT_S", SOON_S)
    monkeypatch.setattr(decoder_watchdog, "READY_LIMIT_S", SOON_S)
    monkeypatch.setattr(decoder_watchdog, "STOPPED_S", SOON_S)
    monkeypatch.setattr(decoder_watchdog, "ELAPSED_LIMIT_S", SOON_S)
    module = "tests.helpers.decoders.faulty_video_process"
    return VideoPool(2, digests=RefusedDigests(folder / "digests"), module=module)
