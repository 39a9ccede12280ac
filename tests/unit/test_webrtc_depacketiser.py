"""Our depacketiser reads RTP payloads that another packetiser made, and refuses malformed ones."""

from __future__ import annotations

import fractions

import av
import numpy as np
import pytest
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from hypothesis import given
from hypothesis import strategies as st

from streamer.protocol.wire import Codec
from streamer.webrtc.depacketizer import BadPayload, depacketise, read_video_header
from streamer.webrtc.jitter_buffer import EncodedFrame, JitterBuffer, RtpPayload

ENCODERS = {Codec.VP8: Vp8Encoder, Codec.H264: H264Encoder}


def image(number: int, width: int = 320, height: int = 240) -> av.VideoFrame:
    """Return an image so noisy that its encoded frame fills several packets."""
    noise = np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format="yuv420p")
    frame.pts, frame.time_base = number * 3000, fractions.Fraction(1, 90_000)
    return frame


@pytest.mark.parametrize("codec", [Codec.VP8, Codec.H264])
def test_frames_of_another_packetiser_are_put_together_and_decode(codec: Codec) -> None:
    encoder, buffer, seq = ENCODERS[codec](), JitterBuffer(), 0
    decoder = av.CodecContext.create("libvpx" if codec is Codec.VP8 else "h264", "r")
    decoded = 0
    for number in range(6):
        payloads, _ = encoder.encode(image(number), force_keyframe=number == 3)
        assert len(payloads) > 1 or number not in (0, 3)
        outputs: list[object] = []
        for place, data in enumerate(payloads):
            payload = depacketise(codec, data)
            assert payload.first == (place == 0 and (codec is Codec.VP8 or payload.key))
            last = place == len(payloads) - 1
            outputs += buffer.add(
                RtpPayload(
                    seq, number * 3000, last=last, data=payload.data, first=payload.first, key=payload.key
                ),
                0.0,
            )
            seq += 1
        (frame,) = outputs
        assert isinstance(frame, EncodedFrame)
        assert read_video_header(codec, frame.data).key == (number in (0, 3))
        decoded += len(decoder.decode(av.Packet(frame.data)))
    assert decoded == 6


def test_vp8_descriptors_of_every_length_are_skipped() -> None:
    key = b"\x10\x02\x00"
    for descriptor in (
        b"\x10",
        b"\x90\x00",
        b"\x90\x80\x11",
        b"\x90\x80\x91\x22",
        b"\x90\xf0\x91\x22\x01\x02",
    ):
        payload = depacketise(Codec.VP8, descriptor + key)
        assert (payload.data, payload.first, payload.key) == (key, True, True)
    assert not depacketise(Codec.VP8, b"\x00" + key).first
    assert not depacketise(Codec.VP8, b"\x11" + key).first
    assert not depacketise(Codec.VP8, b"\x10\x01").key


def test_h264_units_come_out_as_annex_b() -> None:
    start = b"\x00\x00\x00\x01"
    assert depacketise(Codec.H264, b"\x67\x42").data == start + b"\x67\x42"
    aggregated = depacketise(Codec.H264, b"\x78\x00\x02\x67\x42\x00\x01\x68")
    assert (aggregated.data, aggregated.key) == (start + b"\x67\x42" + start + b"\x68", True)
    assert depacketise(Codec.H264, b"\x7c\x85ab").data == start + b"\x65ab"
    assert depacketise(Codec.H264, b"\x7c\x05cd").data == b"cd"


@pytest.mark.parametrize(
    ("codec", "payload"),
    [
        (Codec.VP8, b"\x10"),
        (Codec.VP8, b"\x90"),
        (Codec.VP8, b"\x90\x80\x91"),
        (Codec.H264, b"\x7c"),
        (Codec.H264, b"\x78\x00"),
        (Codec.H264, b"\x78\x00\x09\x67"),
        (Codec.H264, b"\x78\x00\x00"),
        (Codec.H264, b"\x7d\x00\x00"),
        (Codec.H264, b"\x00"),
    ],
)
def test_what_ends_within_itself_is_refused(codec: Codec, payload: bytes) -> None:
    with pytest.raises(BadPayload):
        depacketise(codec, payload)


@given(st.sampled_from([Codec.VP8, Codec.H264]), st.binary(max_size=64))
def test_no_payload_does_any_other_harm(codec: Codec, payload: bytes) -> None:
    try:
        result = depacketise(codec, payload)
    except BadPayload:
        return
    assert len(result.data) <= 4 * len(payload) + 4
