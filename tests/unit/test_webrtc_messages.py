"""A session and its client exchange results over channels or HTTP, and control messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest

from inference.core.detection_params import DetectionParams
from streamer.core.byte_budget import ByteBudget
from streamer.protocol.wire import DropReason, ProtocolError
from streamer.streams.flow_control import FlowControl
from streamer.streams.session import Session
from streamer.streams.session_control import SessionControl, TooManyMessages
from streamer.webrtc.results import (
    CONTROL_WAITING_BYTES,
    RESULTS_WAITING_BYTES,
    ChannelFull,
    Channels,
    ResultSubscriber,
)

#: A message that is not a result.
FLOW: Any = {"type": "flow"}


class FakeChannel:
    """A data channel that keeps what is sent."""

    def __init__(self, label: str, protocol: str = "") -> None:
        self.label = label
        self.protocol = protocol
        self.readyState = "open"
        self.bufferedAmount = 0
        self.sent: list[str | bytes] = []
        self.closed = False

    def send(self, data: str | bytes) -> None:
        self.sent.append(data)

    def on(self, event: str, listener: Callable[..., None]) -> None:
        assert event == "message"

    def close(self) -> None:
        self.closed = True


def result(seq: int) -> Any:
    return {"type": "result", "stream": 0, "seq": seq, "ack": seq, "win": 2}


def channels(*made: FakeChannel) -> tuple[Channels, list[str]]:
    opened: list[str] = []
    both = Channels(lambda: opened.append("control"), lambda _: None)
    for channel in made:
        both.opened(channel)
    return both, opened


def test_results_and_the_rest_go_their_ways_in_the_encoding_of_each_channel() -> None:
    results, control = FakeChannel("results", "detect.v1.msgpack"), FakeChannel("control")
    both, opened = channels(results, control)
    assert opened == ["control"]
    both.send(result(1))
    both.send(FLOW)
    assert isinstance(results.sent[0], bytes)
    assert msgpack.unpackb(results.sent[0])["seq"] == 1
    assert json.loads(control.sent[0]) == FLOW


def test_one_channel_carries_everything_and_none_is_fine() -> None:
    for label in ("results", "control"):
        only = FakeChannel(label)
        both, _ = channels(only)
        both.send(result(1))
        both.send(FLOW)
        assert len(only.sent) == 2
    channels()[0].send(result(1))


def test_other_channels_are_closed() -> None:
    first, again, other = FakeChannel("results"), FakeChannel("results"), FakeChannel("chat")
    channels(first, again, other)
    assert (first.closed, again.closed, other.closed) == (False, True, True)


def test_a_slow_network_costs_results_and_a_client_that_does_not_read_its_session() -> None:
    results, control = FakeChannel("results"), FakeChannel("control")
    both, _ = channels(results, control)
    results.bufferedAmount = RESULTS_WAITING_BYTES + 1
    both.send(result(1))
    assert (results.sent, both.undelivered) == ([], 1)
    control.bufferedAmount = CONTROL_WAITING_BYTES + 1
    with pytest.raises(ChannelFull):
        both.send(FLOW)


async def test_a_slow_reader_gets_the_newest_result_and_drops_for_the_others() -> None:
    subscriber = ResultSubscriber(json.dumps, lambda: ByteBudget(1 << 20).hold("a", "messages"))
    replaced = sum(subscriber.put(result(seq)) for seq in range(1, 21))
    subscriber.end()
    messages = []
    while (message := await subscriber.take()) is not None:
        messages.append(json.loads(message))
    assert len(messages) == 20
    assert messages[-1] == result(20)
    assert sum(message["type"] == "drop" for message in messages) == replaced > 0


async def test_a_reader_that_takes_nothing_is_ended_and_costs_no_memory() -> None:
    subscriber = ResultSubscriber(json.dumps, lambda: ByteBudget(1 << 20).hold("a", "messages"))
    for _ in range(10_000):
        subscriber.put(FLOW)
    count = 0
    async with asyncio.timeout(60):
        while await subscriber.take() is not None:
            count += 1
    assert count <= 256


def new_control(target: Target) -> SessionControl:
    return SessionControl(target, {"hello": "which is not sent here", "frame": "which is not sent here"}, {})


class Target:
    """Stands in for the session and stream on which control messages act."""

    def __init__(self) -> None:
        self.session = Session("v1", ("person", "bus"), DetectionParams())
        self.handle: Any = SimpleNamespace(flow=FlowControl(0))
        self.sent: list[Any] = []
        self.left = False

    def send_all(self, messages: list[Any]) -> None:
        self.sent += messages

    def find_stream(self, number: int) -> Any:
        if number:
            raise ProtocolError("a video is stream 0", code="invalid", field="stream")
        return self.handle

    def bye_received(self) -> None:
        self.left = True


@pytest.mark.parametrize(
    ("message", "code", "field"),
    [
        ("{", "malformed", None),
        ("[]", "malformed", None),
        ('{"type": "dance"}', "unknown_type", "type"),
        ('{"type": "hello"}', "unexpected", "type"),
        ('{"type": "frame", "seq": 1, "data": ""}', "unexpected", "type"),
        ('{"type": "pause", "stream": 3}', "invalid", "stream"),
        ('{"type": "configure", "cfg": 1, "params": {"classes": ["cat"]}}', "invalid", "params.classes[0]"),
        ('{"type": "ping", "x": "' + "y" * 70_000 + '"}', "too_large", None),
        ('{"type": "ping", "tt": 1}', "unknown_field", "tt"),
    ],
)
async def test_a_wrong_control_message_is_answered_with_what_is_wrong(
    message: str, code: str, field: str | None
) -> None:
    target = Target()
    new_control(target).receive(message)
    error = target.sent[-1]
    assert (error["type"], error["code"], error["fatal"]) == ("error", code, False)
    assert error.get("field") == field


async def test_control_messages_act() -> None:
    target = Target()
    control = new_control(target)
    control.receive('{"type": "configure", "cfg": 4, "params": {"classes": ["bus"]}}')
    assert target.session.params.class_ids == (1,)
    assert target.session.cfg == 4
    control.receive(msgpack.packb({"type": "pause"}))
    assert target.handle.flow.paused
    control.receive('{"type": "resume"}')
    assert not target.handle.flow.paused
    control.receive('{"type": "bye"}')
    assert target.left


async def test_a_flood_of_control_messages_is_told_and_then_ended() -> None:
    target = Target()
    control = new_control(target)
    with pytest.raises(TooManyMessages):
        for _ in range(1000):
            control.receive('{"type": "ping"}')
    assert "rate_limited" in {message.get("code") for message in target.sent}
    assert len(target.sent) < 200


def test_a_discarded_frame_has_its_outcome_and_is_told() -> None:
    stream = FlowControl(0)
    assert stream.discard(1, DropReason.NO_KEYFRAME) == []
    assert stream.discard(2, DropReason.NO_KEYFRAME) == []
    told: list[Any] = stream.discard(3, DropReason.DECODE_ERROR, "damaged")
    first, second = told
    assert (first["from"], first["to"], first["reason"]) == (1, 2, "no_keyframe")
    assert (second["from"], second["to"], second["message"], second["ack"]) == (3, 3, "damaged", 3)
    assert (stream.ledger.received, stream.ledger.in_flight) == (3, 0)
