"""Extracts encoded video from the payload of RTP packets: VP8 by RFC 7741, H.264 by RFC 6184. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from streamer.protocol.wire import Codec

_START_CODE = b"\x00\x00\x00\x01"
_NAL_IDR, _NAL_SPS, _NAL_AUD = 5, 7, 9
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
    """Return the NAL units of a STAP-A, each of which follows its length in 16 bits."""
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
