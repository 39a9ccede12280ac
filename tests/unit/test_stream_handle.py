"""A live stream reports drops and errors to its client even when no result comes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from inference.core.errors import InferenceFailed, InferenceLost
from streamer.accounting.box_metrics import BoxMetrics
from streamer.decoding.decode_job import DecoderLost
from streamer.imaging.image_header import Limits
from streamer.protocol.wire import Codec, Frame
from streamer.scheduling.job import Prediction
from streamer.streams.flow_control import FlowControl
from streamer.streams.stream_handle import StreamHandle


class SilentHistogram:
    def labels(self, *_: str) -> SilentHistogram:
        return self

    def observe(self, _: float) -> None:
        return


class FakeMetrics:
    stage_s = SilentHistogram()
    traces = None
    boxes = BoxMetrics(CollectorRegistry())


class FakeSession:
    cfg, track, params = 0, False, None
    labels = ("parcel", "qr_code")


class FakeCarrier:
    """Keeps the messages that a stream sends."""

    version = "v1"
    limits = Limits()
    max_age_s = 0.5
    session: Any = FakeSession()
    metrics: Any = FakeMetrics()

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send_all(self, messages: list[Any]) -> None:
        self.sent += messages


@pytest.fixture
async def carrier() -> FakeCarrier:
    return FakeCarrier()


def superseded(carrier: FakeCarrier) -> StreamHandle:
    """Return a stream whose second frame has superseded its first, and whose turn has not come yet."""
    handle = StreamHandle(carrier, FlowControl(0))
    for seq in (1, 2):
        carrier.send_all(handle.flow.receive(Frame(Codec.JPEG, seq, 0, b"x"), 0.0))
        handle.send_drops_soon()
    assert carrier.sent == []
    return handle


async def test_a_drop_is_told_although_the_streams_turn_is_far_away(carrier: FakeCarrier) -> None:
    handle = superseded(carrier)
    async with asyncio.timeout(60):
        while not carrier.sent:
            await asyncio.sleep(0.01)
    (drop,) = carrier.sent
    assert (drop["type"], drop["from"], drop["to"], drop["reason"]) == ("drop", 1, 1, "superseded")
    assert (drop["ack"], handle.flow.pending) == (1, True), "the client may send a newer frame now"


async def test_a_result_that_comes_first_carries_the_drop_and_nothing_is_told_twice(
    carrier: FakeCarrier,
) -> None:
    handle = superseded(carrier)
    job = handle.take(0.1)
    assert job is not None
    carrier.send_all(handle.flow.answered(2))
    await asyncio.sleep(0.2)
    assert [message["type"] for message in carrier.sent] == ["drop"]


async def test_a_closed_stream_tells_nobody(carrier: FakeCarrier) -> None:
    handle = superseded(carrier)
    handle.close()
    await asyncio.sleep(0.2)
    assert carrier.sent == []
    assert handle.flow.ledger.in_flight == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InferenceLost("gone"), "inference_restarting"),
        (DecoderLost("gone"), "decoder_restarting"),
        (InferenceFailed("it raised"), "inference_failed"),
        (MemoryError("no room for the pixels of a video frame"), "server_fault"),
    ],
)
async def test_a_frame_without_a_result_says_what_it_was(
    carrier: FakeCarrier, error: Exception, code: str
) -> None:
    handle = StreamHandle(carrier, FlowControl(0))
    handle.flow.receive(Frame(Codec.JPEG, 1, 0, b"x"), 0.0)
    job = handle.take(0.1)
    assert job is not None
    job.finish(error)
    (message,) = carrier.sent
    assert (message["type"], message["seq"], message["code"]) == ("error", 1, code)
    ledger = handle.flow.ledger
    assert (ledger.received, ledger.failed, ledger.in_flight) == (1, 1, 0)


async def test_the_boxes_of_a_result_are_counted_by_label(carrier: FakeCarrier) -> None:
    registry = CollectorRegistry()
    carrier.metrics = SimpleNamespace(stage_s=SilentHistogram(), traces=None, boxes=BoxMetrics(registry))
    handle = StreamHandle(carrier, FlowControl(0))
    handle.flow.receive(Frame(Codec.JPEG, 1, 0, b"x"), 0.0)
    job = handle.take(0.1)
    assert job is not None
    boxes = np.array([[0, 0, 9, 9, 0.5, 1], [0, 0, 9, 9, 0.4, 1]], np.float32)
    job.finish(Prediction(160, 120, boxes, 1.0, 1.0, 1.0, 1.0, 1))
    assert [message["type"] for message in carrier.sent] == ["result"]
    assert registry.get_sample_value(
        "object_detection_boxes_total", {"version": "v1", "label": "qr_code"}
    ) == len(boxes)
    assert registry.get_sample_value("object_detection_boxes_per_frame_count", {"version": "v1"}) == 1
