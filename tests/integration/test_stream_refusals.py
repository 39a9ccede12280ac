"""Over a WebSocket, wrong messages, frames and sizes are refused; the session lives or closes as told."""

from __future__ import annotations

import asyncio
from typing import Any

import cv2
import numpy as np
import pytest

from tests.conftest import shared
from tests.helpers.service import Service
from tests.helpers.waiting import wait_for
from tests.helpers.wire_client import WireClient, frame_message


@pytest.fixture(scope="module")
def bus() -> bytes:
    """Return a JPEG of 810x1080 with a bus and people."""
    return shared("data/images/bus.jpg").read_bytes()


@pytest.fixture(scope="module")
def grey() -> bytes:
    """Return a small JPEG without any object."""
    return bytes(cv2.imencode(".jpg", np.full((120, 160, 3), 90, np.uint8))[1])


async def test_frames_past_the_window_are_refused_three_times_then_the_socket_closes(
    service: Service, bus: bytes
) -> None:
    async with WireClient(f"{service.ws_url}/v2/stream") as client:
        await client.hello(streams=[{"id": 0, "codec": "jpeg", "mode": "all"}])
        for seq in range(1, 30):
            await client.socket.send(frame_message(seq, bus))
        errors = [await client.receive("error") for _ in range(3)]
        assert {error["code"] for error in errors} == {"window"}
        code, reason = await client.closed()
        assert (code, "window" in reason) == (4429, True)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ('{"type": "configure", "cfg": 1, "params": {"conf_threshold": NaN}}', "params.conf_threshold"),
        ('{"type": "configure", "cfg": 1, "params": {"conf_threshold": -0.5}}', "params.conf_threshold"),
        ('{"type": "configure", "cfg": 1, "params": {"conf_threshold": "high"}}', "params.conf_threshold"),
        ('{"type": "configure", "cfg": 1, "params": {"iou_threshold": 1e999}}', "params.iou_threshold"),
        ('{"type": "configure", "cfg": 1, "params": {"classes": ["unicorn"]}}', "params.classes[0]"),
        ('{"type": "configure", "cfg": 1, "params": {"treshold": 0.5}}', "params.treshold"),
        ('{"type": "pause", "stream": 4}', "stream"),
        ('{"type": "resume", "stream": "0"}', "stream"),
        ('{"type": "ping", "t0": {}}', "t0"),
        ('{"type": "bye", "code": "now"}', "code"),
        ('{"type": "hello"}', "type"),
        ('{"type": "frame", "seq": 1, "data": "%%%"}', "data"),
        ('{"type": "teleport"}', "type"),
        ('{"no": "type"}', "type"),
    ],
)
async def test_a_wrong_message_names_its_field_and_the_session_lives(
    service: Service, grey: bytes, message: str, field: str
) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello()
        await client.socket.send(message)
        error = await client.receive("error")
        assert (error["field"], error["fatal"]) == (field, False)
        assert field in error["message"]
        await client.send_frame(1, grey)
        assert (await client.receive("result"))["seq"] == 1


@pytest.mark.parametrize("text", ["{", "[1, 2]", '"hello"', "\x00"])
async def test_text_that_is_no_message_is_an_error_after_hello(service: Service, text: str) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello()
        await client.socket.send(text)
        assert (await client.receive("error"))["fatal"] is False
        await client.send({"type": "ping"})
        await client.receive("pong")


@pytest.mark.parametrize(
    ("hello", "field"),
    [
        ({"params": {"conf_threshold": 7}}, "params.conf_threshold"),
        ({"streams": "x"}, "streams"),
        ({"streams": [{"id": 0}, {"id": 0}]}, "streams[1].id"),
        ({"streams": [{"id": 0, "codec": "gif"}]}, "streams[0].codec"),
        ({"params": {"classes": ["unicorn"]}}, "params.classes[0]"),
    ],
)
async def test_a_hello_with_a_wrong_field_may_be_sent_again(
    service: Service, hello: dict[str, Any], field: str
) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.send({"type": "hello", **hello})
        error = await client.receive("error")
        assert (error["field"], error["fatal"]) == (field, False)
        assert (await client.hello())["type"] == "welcome"


async def test_an_unknown_field_of_hello_is_reported_after_the_welcome(service: Service) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello(params={"conf_treshold": 0.5})
        error = await client.receive("error")
        assert (error["code"], error["field"]) == ("unknown_field", "params.conf_treshold")


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ("nonsense", 4400),
        ("[]", 4400),
        ('{"type": "configure", "cfg": 1, "params": {}}', 4400),
        (frame_message(1, b"x"), 4400),
    ],
)
async def test_a_first_message_that_is_no_hello_closes_with_4400(
    service: Service, first: str | bytes, code: int
) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.socket.send(first)
        assert (await client.closed())[0] == code


async def test_encoded_video_is_refused_with_4406(service: Service) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.send({"type": "hello", "streams": [{"id": 0, "codec": "h264"}]})
        code, reason = await client.closed()
        assert (code, "jpeg" in reason) == (4406, True)


async def test_an_encoded_video_frame_in_an_image_stream_is_one_error(service: Service, grey: bytes) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello()
        await client.send_frame(1, b"\x00\x00\x00\x01", codec="h264")
        error = await client.receive("error")
        assert (error["code"], error["seq"], error["ack"]) == ("unsupported_codec", 1, 1)
        await client.send_frame(2, grey)
        assert (await client.receive("result"))["seq"] == 2


async def test_a_broken_frame_header_names_the_field_and_the_session_lives(
    service: Service, grey: bytes
) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello()
        for data, field in (
            (b"\x01short", "header"),
            (frame_message(0, b"x"), "seq"),
            (b"\x01\x09" + frame_message(1, b"x")[2:], "codec"),
        ):
            await client.socket.send(data)
            error = await client.receive("error")
            assert (error["code"], error["field"]) == ("bad_frame", field)
        await client.send_frame(1, grey)
        await client.receive("result")


async def test_a_message_over_the_limit_closes_with_1009_and_one_at_the_limit_does_not(
    service: Service,
) -> None:
    limit = 2 << 20
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello()
        await client.socket.send(frame_message(1, b"\xff\xd8" + bytes(limit - 26)))
        drop = await client.receive("drop")
        assert drop["reason"] == "decode_error"
        await client.socket.send(frame_message(2, bytes(limit)))
        assert (await client.closed())[0] == 1009


async def test_a_control_message_over_64_kib_closes_with_4429(service: Service) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello()
        await client.send({"type": "ping", "pad": "x" * 70_000})
        assert (await client.closed())[0] == 4429


async def test_too_many_control_messages_are_ignored_with_an_error_then_closed(service: Service) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello()
        for _ in range(300):
            await client.send({"type": "pong"})
        assert (await client.receive("error"))["code"] == "rate_limited"
        assert (await client.closed())[0] == 4429


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ('{"type": "ping", "t0": 1180591620717411303424}', "t0"),
        ('{"type": "ping", "t0": -9223372036854775809}', "t0"),
        ('{"type": "ping", "t0": "\\ud800"}', "t0"),
        ('{"type": "ping", "\\ud800": 1}', "message"),
        ('{"type": "ping", "x": ' + "[" * 700 + "]" * 700 + "}", "x" + "[0]" * 31),
        ('{"type": "ping", "x": ' + "[" * 40_000 + "]" * 20_000 + "}", ""),
        (b"\x82\xa4type\xa4ping\xa1x" + b"\x91" * 900 + b"\xc0", "x" + "[0]" * 31),
        (b"\x82\xa4type\xa4ping\xc0\x01", "message"),
        (b"\x82\xa4type\xa4ping\xa2t0\xd6\xff\x00\x00\x00\x00", "t0"),
    ],
    ids=["large", "small", "text", "key", "deep", "deeper", "deep msgpack", "odd key", "timestamp"],
)
@pytest.mark.parametrize("subprotocol", ["detect.v1.msgpack", "detect.v1.json"])
async def test_no_message_can_hurt_the_session_or_leave_a_stream_behind(
    service: Service, grey: bytes, subprotocol: str, message: str | bytes, field: str
) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream", subprotocol=subprotocol) as client:
        await client.hello()
        await client.socket.send(message)
        error = await client.receive("error")
        assert (error.get("field", ""), error["fatal"]) == (field, False)
        await client.send_frame(1, grey)
        assert (await client.receive("result"))["seq"] == 1
    for _ in range(1200):
        if service.metric("object_detection_streams", transport="websocket") == 0:
            break
        await asyncio.sleep(0.05)
    assert service.metric("object_detection_streams", transport="websocket") == 0


@pytest.mark.parametrize(
    ("acks", "field"),
    [
        ({"abc": 1}, "resume.acks.abc"),
        ({"8": 1}, "resume.acks[8]"),
        ({"0": -5}, "resume.acks[0]"),
        ({"0": 10**15}, "resume.acks[0]"),
        ({"0": "1"}, "resume.acks[0]"),
    ],
)
async def test_wrong_acks_are_named(service: Service, acks: dict[str, Any], field: str) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.send({"type": "hello", "resume": {"session": "x", "acks": acks}})
        assert (await client.receive("error"))["field"] == field
        await client.hello(resume={"session": "x", "acks": {"0": 1}})
    async with WireClient(f"{service.ws_url}/v1/stream", subprotocol="detect.v1.msgpack") as client:
        await client.hello(resume={"session": "x", "acks": {0: 1}})


async def test_an_ack_of_frames_that_were_never_sent_does_not_silence_the_stream(
    service: Service, grey: bytes
) -> None:
    streams = [{"id": 0, "codec": "jpeg", "mode": "all"}]
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        session = (await client.hello(streams=streams))["session"]
        await client.send_frame(1, grey)
        await client.receive("result")
        client.socket.transport.abort()
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        resume = {"session": session, "acks": {"0": 4_294_967_295}}
        assert (await client.hello(streams=streams, resume=resume))["resumed"] is True
        await client.send_frame(2, grey)
        assert (await client.receive("result"))["seq"] == 2


async def test_a_burst_of_control_messages_is_answered_to_a_client_that_reads(service: Service) -> None:
    streams = [{"id": number, "codec": "jpeg", "mode": "live"} for number in range(8)]
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello(streams=streams)
        for number in range(55):
            await client.send({"type": "ping", "t0": number})
        answers = [await client.receive("pong") for _ in range(55)]
        assert [pong["t0"] for pong in answers] == list(range(55))


async def test_messages_that_do_not_parse_count_against_the_rate_too(service: Service) -> None:
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello()
        for _ in range(200):
            await client.socket.send("{")
        assert (await client.closed())[0] == 4429


async def test_a_frame_is_held_to_the_limits_of_streams(service: Service) -> None:
    image = np.full((4200, 4200, 3), 90, np.uint8)
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        limits = (await client.hello())["limits"]
        assert limits["pixels"] < 4200 * 4200
        await client.send_frame(1, bytes(cv2.imencode(".jpg", image)[1]))
        result = await client.receive("result")
        assert (result["width"], result["height"], result["reduced"]) == (4200, 4200, 2)
        await client.send_frame(2, bytes(cv2.imencode(".png", image)[1]))
        drop = await client.receive("drop")
        assert (drop["reason"], "16.8 megapixels" in drop["message"]) == ("decode_error", True)


async def test_frames_that_no_stream_can_take_are_in_the_ledger(service: Service, grey: bytes) -> None:
    names = ("received_total", "inferred_total", "dropped_total", "failed_total")

    def counts() -> dict[str, float]:
        return {name: service.metric(f"object_detection_frames_{name}") for name in names}

    # Frames of connections that earlier tests left may still be on their way.
    while (before := counts())["received_total"] != sum(before[name] for name in names[1:]):
        await asyncio.sleep(0.05)
    async with WireClient(f"{service.ws_url}/v1/stream") as client:
        await client.hello()
        await client.send_frame(5, grey)
        await client.receive("result")
        await client.send_frame(5, grey)
        await client.send_frame(1, grey, stream=3)
        await client.socket.send(b"\x01short")
        await client.send({"type": "frame", "seq": 9, "codec": "jpeg", "data": "%%%"})
        errors = [await client.receive("error") for _ in range(4)]
        assert [error["code"] for error in errors] == ["bad_seq", "unknown_stream", "bad_frame", "invalid"]
        assert errors[3]["seq"] == 9
    expected = {"received_total": 5, "inferred_total": 1, "dropped_total": 0, "failed_total": 4}

    def grown() -> dict[str, float]:
        after = counts()
        return {name: after[name] - before[name] for name in names}

    await asyncio.to_thread(wait_for, lambda: grown() == expected, "each frame has its outcome")
