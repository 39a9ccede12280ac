"""Tests that size and rate of control messages are checked before parsing; only images may be large."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgpack
import pytest

from streamer.protocol.client_messages import MAX_UNKNOWN_NAMED, Hello, parse_message
from streamer.protocol.close_codes import CloseCode, CloseConnection
from streamer.protocol.wire import ProtocolError
from streamer.streams.session_control import CONTROL_MAX_BYTES, ControlRate, RateLimited, size_in_bytes
from streamer.websocket.frame_receiver import TEXT_FRAMES_BURST, MessageDecoder
from tests.helpers.cpu_time import least_cpu_s

IMAGE = bytes(range(256)) * 1200


def new_intake() -> MessageDecoder:
    return MessageDecoder(ControlRate(0.0), 0.0)


def text_frame(**more: Any) -> dict[str, Any]:
    return {"type": "frame", "seq": 3, "data": base64.b64encode(IMAGE).decode(), **more}


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(text_frame()),
        json.dumps(text_frame(), indent=2),
        json.dumps(text_frame()).replace("/", "\\/"),
        json.dumps({"data": text_frame()["data"], "type": "frame", "seq": 3}),
        msgpack.packb(text_frame()),
        msgpack.packb(text_frame(data=IMAGE)),
    ],
    ids=["json", "indented", "escaped slashes", "image first", "msgpack text", "msgpack bytes"],
)
def test_a_large_frame_is_decoded_around_its_image(data: str | bytes) -> None:
    assert len(data) > CONTROL_MAX_BYTES
    message = new_intake().decode(data, 0.0)
    parsed = parse_message(message)
    assert bytes(parsed.to_frame().payload) == IMAGE  # type: ignore[attr-defined]


NESTED = "[" + ",".join(["[]"] * 500_000) + "]"


@pytest.mark.parametrize(
    "data",
    [
        '{"type": "frame", "x": ' + NESTED + "}",
        '{"type": "frame", "data": "", "x": ' + NESTED + "}",
        '{"type": "frame", "data": "AAAA", "x": "' + "y" * 70_000 + '"}',
        '{"type": "ping", "note": "frame", "x": {"data": "' + "A" * 70_000 + '"}}',
        '{"type": "ping", "frame": 1, "data": "' + "A" * 70_000 + '"}',
        b"\x82\xa4type\xa5frame\xa1x\xdd\x00\x1e\x84\x80" + b"\x90" * 2_000_000,
        b"\x82\xa4type\xa5frame\xa1x" + b"\x81\xa1a" * 40_000 + b"\xc0",
        b"\xdf\x00\x1e\x84\x80\xa4type\xa5frame" + b"\xa1x\xc0" * 600_000,
        msgpack.packb({"type": "frame", "x": msgpack.ExtType(4, b"e" * 100_000)}),
        msgpack.packb({"type": "frame", "x": b"e" * 100_000}),
        msgpack.packb([text_frame()]),
        b"\x01frame" * 20_000,
        "🎥" * 17_000,
    ],
    ids=range(13),
)
def test_any_other_large_message_is_refused_without_being_built(data: str | bytes) -> None:
    def refuse() -> None:
        with pytest.raises(CloseConnection) as caught:
            new_intake().decode(data, 0.0)
        assert caught.value.code == CloseCode.LIMITS

    # Building the values would exceed this limit: json.loads of `NESTED` alone takes longer.
    assert least_cpu_s(refuse) < 0.05


def test_a_size_is_that_of_the_bytes() -> None:
    assert size_in_bytes("🎥" * 10) == 40
    assert size_in_bytes("abc") == size_in_bytes(b"abc") == 3


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ('{"type": "ping", "x": [' + "0," * 5000 + "0]}", "too_large"),
        (b"\x82\xa4type\xa4ping\xa1x\xdc\xff\xff" + b"\x90" * 60_000, "malformed"),
        (b"\x82\xa4type\xa4ping\xa1x\xdd\x7f\xff\xff\xff", "malformed"),
        (b"\x82\xa4type\xa4ping\xa1x\xc6\x7f\xff\xff\xff", "malformed"),
        (b"\x82\xa4type\xa4ping\xa1x\xc9\x7f\xff\xff\xff\x01", "malformed"),
        (b"\x82\xa4type\xa4ping\xa1x\xdf\x7f\xff\xff\xff", "malformed"),
        ('{"type": "ping", "t0": ' + "9" * 60_000 + "}", "malformed"),
        ('{"a":' * 10_000 + "1" + "}" * 10_000, "malformed"),
    ],
    ids=["many", "short list", "list", "bytes", "extension", "map", "number", "depth"],
)
def test_what_a_small_message_claims_costs_nothing(data: str | bytes, code: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        new_intake().decode(data, 0.0)
    assert caught.value.code == code


def test_large_messages_use_the_rate_up_sooner_and_nothing_is_parsed_beyond_it() -> None:
    large = '{"type": "ping", "x": "' + "y" * 60_000 + '"}'
    intake = new_intake()
    taken = 0
    with pytest.raises(RateLimited):
        for _ in range(100):
            intake.decode(large, 0.0)
            taken += 1
    assert 10 <= taken <= 20
    with pytest.raises(RateLimited):
        intake.decode("not even JSON" * 2000, 0.0)


def test_text_frames_have_a_rate_of_their_own_and_cannot_hide_control_messages() -> None:
    frame = '{"type": "frame", "seq": 1, "data": ""}'
    intake = new_intake()
    for _ in range(TEXT_FRAMES_BURST):
        intake.decode(frame, 0.0)
    with pytest.raises(RateLimited, match="text frames"):
        intake.decode(frame, 0.0)
    disguised = new_intake()
    with pytest.raises(RateLimited, match="control messages"):
        for _ in range(TEXT_FRAMES_BURST):
            disguised.decode('{"type": "ping", "t0": "x", "frame": "frame"}', 0.0)


def test_unknown_fields_are_named_up_to_a_bound_and_cut() -> None:
    hello = parse_message({"type": "hello", **{f"{number}" * 1000: 0 for number in range(1000)}})
    assert isinstance(hello, Hello)
    names = hello.unknown_fields()
    assert len(names) == MAX_UNKNOWN_NAMED
    assert max(map(len, names)) <= 200


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"type": "ping", "t0": "x" * 101}, "t0"),
        ({"type": "hello", "resume": {"session": "s", "acks": dict.fromkeys(range(9), 1)}}, "resume.acks"),
        ({"type": "hello", "streams": [["x" * 5000] * 1000] * 9}, "streams"),
        ({"type": "configure", "cfg": 1, "params": {"classes": ["x" * 50] * 1001}}, "params.classes"),
        ({"type": "frame", "seq": 1, "data": 5}, "data"),
    ],
)
def test_a_refusal_is_short_whatever_was_sent(message: dict[str, Any], field: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_message(message)
    assert caught.value.field == field
    assert len(str(caught.value)) < 400
