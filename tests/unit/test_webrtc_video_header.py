"""The headers of encoded frames state a size, which is checked before a decoder sees the frame."""

from __future__ import annotations

import struct

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.protocol.wire import Codec
from streamer.webrtc.depacketizer import MAX_SIDE_PX, BadVideo, VideoHeader, read_video_header


def encode(name: str, width: int, height: int, **options: str) -> bytes:
    """Return one key frame of a real encoder."""
    encoder = av.CodecContext.create(name, "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.framerate, encoder.bit_rate = 30, 500_000
    profile = options.pop("profile", None)
    encoder.options = options
    if profile:
        encoder.profile = profile
    frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 90, np.uint8), format="rgb24")
    packets = [*encoder.encode(frame.reformat(format="yuv420p")), *encoder.encode(None)]
    return bytes(packets[0])


@pytest.mark.parametrize("size", [(320, 240), (640, 480), (1278, 718), (66, 50)])
def test_vp8_key_frames_state_their_size(size: tuple[int, int]) -> None:
    assert read_video_header(Codec.VP8, encode("libvpx", *size)) == VideoHeader(True, *size)


@pytest.mark.parametrize("profile", ["Baseline", "Main", "High"])
def test_h264_parameter_sets_state_whole_macroblocks(profile: str) -> None:
    header = read_video_header(Codec.H264, encode("libx264", 1920, 1080, profile=profile, tune="zerolatency"))
    assert header == VideoHeader(True, 1920, 1088)


def test_deltas_state_nothing() -> None:
    assert read_video_header(Codec.VP8, b"\x01\x00\x00rest") == VideoHeader(key=False)
    assert read_video_header(Codec.H264, b"\x00\x00\x00\x01\x41\x9a") == VideoHeader(key=False)


def test_the_vp8_bomb_of_38_bytes_is_refused() -> None:
    bomb = b"\x10\x02\x00\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383) + bytes(28)
    with pytest.raises(BadVideo, match=f"16383x16383 pixels; allowed are .* {MAX_SIDE_PX} a side"):
        read_video_header(Codec.VP8, bomb)


def test_an_h264_parameter_set_of_65536_pixels_a_side_is_refused() -> None:
    bits = "".join(f"{value:08b}" for value in (66, 0xC0, 30))
    for value in (0, 0, 2, 1):
        bits += golomb(value)
    bits += "0" + golomb(4095) + golomb(4095) + "1"
    bits += "0" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big")
    with pytest.raises(BadVideo, match="65536x65536"):
        read_video_header(Codec.H264, b"\x00\x00\x01\x67" + data)


def golomb(value: int) -> str:
    code = f"{value + 1:b}"
    return "0" * (len(code) - 1) + code


@given(st.sampled_from([Codec.VP8, Codec.H264]), st.binary(max_size=80))
def test_no_frame_does_any_other_harm(codec: Codec, data: bytes) -> None:
    for prefix in (b"", b"\x00\x00\x01\x67"):
        try:
            header = read_video_header(codec, prefix + data)
        except BadVideo:
            continue
        assert max(header.width, header.height) <= MAX_SIDE_PX
