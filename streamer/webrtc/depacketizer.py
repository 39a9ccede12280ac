"""Extracts encoded video from RTP payloads (VP8 by RFC 7741, H.264 by RFC 6184) and reads its headers.

Decoders allocate memory for the size that a header claims, so the size is checked before they get the frame:
a VP8 packet of 38 bytes that claims 16383x16383 pixels costs 882 MB.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from streamer.imaging.bits import BadBits, BitReader
from streamer.protocol.wire import Codec

#: 4096x2304 in either orientation: the largest frames that cameras and encoders of browsers send.
MAX_SIDE_PX = 4096
MAX_PIXELS = 4096 * 2304

_NAL_IDR, _NAL_SPS = 5, 7
_VP8_START_CODE = b"\x9d\x01\x2a"
_NAL_BORDER = re.compile(rb"\x00\x00\x01")
#: How many bytes of a sequence parameter set are read. Real encoders write some 30.
_SPS_BYTES = 256
#: Profiles whose parameter sets state chroma format and bit depth (H.264 section 7.3.2.1.1).
_HIGH_PROFILES = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}


class BadVideo(ValueError):
    """The header of a frame is malformed, or the frame is larger than allowed."""


@dataclass(frozen=True, slots=True)
class VideoHeader:
    """Holds what a frame's header says.

    ``width`` and ``height`` are in pixels; both are 0 unless it is a VP8 key frame or has an H.264 SPS.
    """

    key: bool
    width: int = 0
    height: int = 0


def read_video_header(codec: Codec, data: bytes) -> VideoHeader:
    """Return the header of a frame. Raises BadVideo when the frame is too large or malformed."""
    header = _vp8_header(data) if codec is Codec.VP8 else _h264_header(data)
    longer, pixels = max(header.width, header.height), header.width * header.height
    if longer > MAX_SIDE_PX or pixels > MAX_PIXELS:
        raise BadVideo(
            f"the video claims {header.width}x{header.height} pixels; "
            f"allowed are {MAX_PIXELS} pixels, {MAX_SIDE_PX} a side"
        )
    return header


def _vp8_header(data: bytes) -> VideoHeader:
    """Read the header (RFC 6386, 9.1): a frame tag of three bytes, then start code and size in key frames."""
    if not data or data[0] & 1:
        return VideoHeader(key=False)
    if len(data) < 10 or data[3:6] != _VP8_START_CODE:
        raise BadVideo("a VP8 key frame without its start code")
    width = int.from_bytes(data[6:8], "little") & 0x3FFF
    height = int.from_bytes(data[8:10], "little") & 0x3FFF
    if not width or not height:
        raise BadVideo(f"a VP8 key frame of {width}x{height} pixels")
    return VideoHeader(True, width, height)


def _h264_header(data: bytes) -> VideoHeader:
    key, width, height = False, 0, 0
    for unit in _units(data):
        kind = unit[0] & 0x1F
        key = key or kind == _NAL_IDR
        if kind == _NAL_SPS:
            try:
                size = _sps_size(unit[:_SPS_BYTES])
            except BadBits as error:
                raise BadVideo(f"an H.264 parameter set {error}") from error
            # Take the maximum, so that a second set with a larger size is not missed.
            width, height = max(width, size[0]), max(height, size[1])
    return VideoHeader(key, width, height)


def _units(data: bytes) -> Iterator[bytes]:
    """Yield the NAL units of an Annex B stream, each cut to the bytes that are read."""
    starts = [match.end() for match in _NAL_BORDER.finditer(data)]
    for at in starts:
        if at < len(data):
            yield data[at : at + _SPS_BYTES]


def _sps_size(unit: bytes) -> tuple[int, int]:
    """Return width and height, before cropping, of a sequence parameter set (H.264 section 7.3.2.1.1)."""
    bits = BitReader.of_unit(unit[1:])
    profile = bits.take(8)
    bits.take(16)  # constraints and level
    bits.unsigned()  # id
    if profile in _HIGH_PROFILES:
        _skip_high(bits)
    bits.unsigned()  # log2_max_frame_num_minus4
    order = bits.unsigned()
    if order == 0:
        bits.unsigned()
    elif order == 1:
        bits.take(1)
        bits.signed()
        bits.signed()
        cycle = bits.unsigned()
        if cycle > 255:
            raise BadVideo(f"an H.264 parameter set with {cycle} reference frame offsets")
        for _ in range(cycle):
            bits.signed()
    bits.unsigned()  # max_num_ref_frames
    bits.take(1)
    width = (bits.unsigned() + 1) * 16
    map_units = bits.unsigned() + 1
    frames_only = bits.take(1)
    return width, map_units * 16 * (2 - frames_only)


def _skip_high(bits: BitReader) -> None:
    chroma_format = bits.unsigned()
    if chroma_format == 3:
        bits.take(1)
    bits.unsigned()  # bit_depth_luma_minus8
    bits.unsigned()
    bits.take(1)
    if not bits.take(1):  # seq_scaling_matrix_present_flag
        return
    for index in range(12 if chroma_format == 3 else 8):
        if bits.take(1):
            _skip_scaling_list(bits, 16 if index < 6 else 64)


def _skip_scaling_list(bits: BitReader, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last


_START_CODE = b"\x00\x00\x00\x01"
_NAL_AUD = 9
_STAP_A, _FU_A = 24, 28


class BadPayload(ValueError):
    """A packet's payload is shorter than it claims, or of a kind that was not negotiated."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A packet's part of the encoded frame, in the form for the decoder (H.264: Annex B)."""

    data: bytes
    #: Whether it is known to begin a frame.
    first: bool
    #: Whether it is known to begin a key frame.
    key: bool


def depacketise(codec: Codec, payload: bytes) -> Payload:
    """Return what ``payload`` adds to its frame. Raises BadPayload."""
    if not payload:
        return Payload(b"", first=False, key=False)
    return _vp8(payload) if codec is Codec.VP8 else _h264(payload)


def _vp8(payload: bytes) -> Payload:
    """Skip the descriptor of RFC 7741 section 4.2: one byte, then picture id, TL0PICIDX, TID or KEYIDX."""
    first = payload[0] & 0x10 != 0 and payload[0] & 0x07 == 0
    at = 1
    if payload[0] & 0x80:
        extensions = _byte(payload, 1)
        at = 2
        if extensions & 0x80:
            at += 2 if _byte(payload, at) & 0x80 else 1
        if extensions & 0x40:
            at += 1
        if extensions & 0x30:
            at += 1
    if at >= len(payload):
        raise BadPayload(f"a VP8 descriptor of {at} bytes fills a packet of {len(payload)}")
    # The lowest bit of a frame's first byte is 0 in key frames (RFC 6386 section 9.1).
    return Payload(payload[at:], first=first, key=first and not payload[at] & 1)


def _h264(payload: bytes) -> Payload:
    kind = payload[0] & 0x1F
    if 1 <= kind < _STAP_A:
        return Payload(_START_CODE + payload, first=kind in (_NAL_SPS, _NAL_AUD), key=kind == _NAL_SPS)
    if kind == _STAP_A:
        units = _aggregated(payload)
        leading = units[0][0] & 0x1F
        data = b"".join(_START_CODE + unit for unit in units)
        return Payload(data, first=leading in (_NAL_SPS, _NAL_AUD), key=leading == _NAL_SPS)
    if kind == _FU_A:
        header = _byte(payload, 1)
        if not header & 0x80:
            return Payload(payload[2:], first=False, key=False)
        unit = bytes((payload[0] & 0xE0 | header & 0x1F,))
        return Payload(_START_CODE + unit + payload[2:], first=False, key=False)
    raise BadPayload(f"H.264 packets of type {kind} were not agreed")


def _aggregated(payload: bytes) -> list[bytes]:
    """Return the NAL units of a STAP-A, in which a length of 16 bits precedes each unit."""
    units = []
    at = 1
    while at < len(payload):
        length = _byte(payload, at) << 8 | _byte(payload, at + 1)
        unit = payload[at + 2 : at + 2 + length]
        if not length or len(unit) < length:
            raise BadPayload(f"a unit of {length} bytes ends after {len(unit)}")
        units.append(unit)
        at += 2 + length
    if not units:
        raise BadPayload("an aggregation packet without units")
    return units


def _byte(payload: bytes, at: int) -> int:
    if at >= len(payload):
        raise BadPayload(f"a packet of {len(payload)} bytes ends within its header")
    return payload[at]
