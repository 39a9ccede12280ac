"""Fuzz targets that read what clients send: frames and messages of detect.v1, offers, candidates, queries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl

import msgpack

from inference.core.detection_params import DetectionParams
from streamer.http.problem_details import Problem
from streamer.http.trace_context import parse_traceparent
from streamer.predict.parameters import read_collect, read_name, read_parameters
from streamer.protocol.client_messages import Configure, Hello, TextFrame, parse_message, resolve_params
from streamer.protocol.wire import (
    Codec,
    Frame,
    FrameFlag,
    ProtocolError,
    decode_message,
    encode_message,
    pack_frame,
    unpack_frame,
)
from streamer.streams.session_control import CONTROL_MAX_VALUES
from streamer.webrtc.candidate import (
    BadCandidate,
    BadFragment,
    IceRestartRequested,
    read_candidates,
    read_fragment,
    usable,
)
from streamer.webrtc.sdp_offer import BadOffer, check_offer
from tests.fuzz.target import Target

_LABELS = ("qr_code", "barcode", "1")

_HELLO: dict[str, Any] = {
    "type": "hello",
    "token": "test-key",
    "client": {"name": "page", "version": "1"},
    "streams": [{"id": 0, "codec": "jpeg", "mode": "live", "fps": 5, "name": "hall"}],
    "params": {"conf_threshold": 0.3, "classes": ["qr_code", 1], "track": True},
    "resume": {"session": "abc", "acks": {"0": 5}},
}
_MESSAGES: tuple[dict[str, Any], ...] = (
    _HELLO,
    {"type": "configure", "cfg": 3, "params": {"iou_threshold": 0.5, "max_detections": 10}},
    {"type": "ping", "t0": 12.5},
    {"type": "pong", "t0": "x", "t1": 1, "t2": 2},
    {"type": "pause", "stream": 1},
    {"type": "report", "stream": 0, "note": "wrong"},
    {"type": "bye", "code": 1000, "reason": "done"},
    {"type": "frame", "seq": 1, "data": "AAAA", "codec": "png"},
    {"type": "hello", "unknown": {"deep": [1, [2, [3]]]}},
)


def _frames() -> Iterator[bytes]:
    yield pack_frame(Frame(Codec.JPEG, 1, 2, b"payload"))
    yield pack_frame(Frame(Codec.WEBP, 2**32 - 1, 2**64 - 1, b"", 640, 480, 7, 3, 9, FrameFlag.KEY))
    yield bytes([1, 0, 0, 255]) + bytes(1020)


def _obey(data: str | bytes) -> None:
    message = parse_message(decode_message(data, most_values=CONTROL_MAX_VALUES))
    message.unknown_fields()
    if isinstance(message, Hello | Configure):
        resolve_params(message.params, DetectionParams(), _LABELS)
    if isinstance(message, TextFrame):
        message.to_frame()
    # Every accepted message can be encoded again, in both subprotocols.
    for subprotocol in ("detect.v1.json", "detect.v1.msgpack"):
        encode_message(message.model_dump(exclude={"data"}), subprotocol)


def _obey_text(data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return  # the service closes such a WebSocket with code 1007
    _obey(text)


def _texts() -> Iterator[bytes]:
    yield from (json.dumps(message).encode() for message in _MESSAGES)


def _packs() -> Iterator[bytes]:
    yield from (msgpack.packb(message) for message in _MESSAGES)
    # Here the key of a map is a map, which JSON does not allow. It once raised a TypeError in the parser.
    yield b"\x82\xa4type\xa4ping\x81\xa1a\x01\x02"


_CANDIDATE = "1 1 udp 2130706431 198.51.100.7 50000 typ host"
_SDP = (
    "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n"
    "a=fingerprint:sha-256 " + ":".join(["AB"] * 32) + "\r\n"
    "a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n"
    "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=sendonly\r\na=rtcp-mux\r\n"
    "a=setup:actpass\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 H264/90000\r\n"
    "a=fmtp:97 profile-level-id=42e01f;packetization-mode=1\r\na=candidate:" + _CANDIDATE + "\r\n"
    "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:1\r\na=sctp-port:5000\r\n"
)


def _offers() -> Iterator[bytes]:
    yield _SDP.encode()
    yield _SDP.replace("\r\n", "\n").replace("sendonly", "sendrecv").encode()
    audio = "m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\na=mid:2\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n"
    yield (_SDP.replace("BUNDLE 0 1", "BUNDLE 0 1 2") + audio).encode()


def _check_offer(data: bytes) -> None:
    for allow_private in (False, True):
        offer = check_offer(data.decode(errors="replace"), allow_private=allow_private)
        # The WebRTC stack uses `splitlines`, so no other line separator may hide a candidate from our check.
        assert not [line for line in offer.sdp.splitlines() if line.startswith("a=candidate:")]
        assert len(offer.candidates) <= 16


def _candidates() -> Iterator[bytes]:
    yield _CANDIDATE.encode()
    yield b"842 1 UDP 1 2001:db8::1 50000 typ srflx raddr 10.0.0.1 rport 9 generation 0"
    yield b"1 1 tcp 1 192.0.2.1 9 typ host tcptype active"
    yield b"1 2 udp 1 abc.local 50000 typ host"


def _check_candidate(data: bytes) -> None:
    text = data.decode(errors="replace")
    for allow_private in (False, True):
        usable(text, allow_private=allow_private)


def _fragments() -> Iterator[bytes]:
    yield f"a=ice-ufrag:abcd\r\na=mid:0\r\na=candidate:{_CANDIDATE}\r\na=end-of-candidates\r\n".encode()
    entry = {"candidate": f"candidate:{_CANDIDATE}", "sdpMid": "0"}
    yield json.dumps({"candidates": [entry, ""]}).encode()
    yield json.dumps({"candidate": entry}).encode()


def _read_trickle(data: bytes) -> None:
    text = data.decode(errors="replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        found = read_fragment(text, "abcd")
    else:
        found = read_candidates(body)
    assert all(isinstance(candidate, str) for candidate in found)


def _queries() -> Iterator[bytes]:
    yield b"conf_threshold=0.5&iou_threshold=0.4&max_detections=5&classes=qr_code,1&collect=0"
    yield b"classes=barcode&classes=0&name=hall"
    yield b"conf_threshold=1e-3&max_detections=1000"


def _read_query(data: bytes) -> None:
    pairs = parse_qsl(data.decode(errors="replace"), keep_blank_values=True)
    read_name(pairs)
    read_collect(pairs)
    params = read_parameters(pairs, _LABELS, DetectionParams())
    assert 0 <= params.conf_threshold <= 1
    assert 1 <= params.max_detections <= 1000


def _trace_contexts() -> Iterator[bytes]:
    yield b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\nvendor=value"
    yield b"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more\n"


def _read_trace_context(data: bytes) -> None:
    """Read `traceparent` and `tracestate`, one on each line; what is passed on must be valid again."""
    parent, _, state = data.decode("latin-1").partition("\n")
    found = parse_traceparent(parent, state)
    if found is not None:
        assert parse_traceparent(found.traceparent, found.state) == found


TARGETS = (
    Target("frame", unpack_frame, (ProtocolError,), _frames),
    Target("control_json", _obey_text, (ProtocolError,), _texts),
    Target("control_msgpack", _obey, (ProtocolError,), _packs),
    Target("offer", _check_offer, (BadOffer,), _offers, 65_536),
    Target("candidate", _check_candidate, (BadCandidate,), _candidates),
    Target("trickle", _read_trickle, (BadFragment, IceRestartRequested), _fragments, 16_384),
    Target("query", _read_query, (Problem,), _queries),
    Target("trace_context", _read_trace_context, (), _trace_contexts),
)
