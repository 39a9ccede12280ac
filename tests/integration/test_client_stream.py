"""Tests the client library against the real service: both modes, parameters, tracks, synchronous client."""

from __future__ import annotations

import asyncio
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from streamer.client import (
    BadInput,
    DetectStream,
    DetectStreamSync,
    Options,
    Outcome,
    Params,
    Phase,
    Result,
    StreamClosed,
)
from tests.conftest import shared
from tests.helpers.service import Service

Pixels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def bus() -> Path:
    """Return the path of a JPEG of 810x1080 pixels that shows a bus and people."""
    return shared("data/images/bus.jpg")


@pytest.fixture(scope="module")
def pixels(bus: Path) -> Pixels:
    """Return the image of ``bus`` as BGR pixels at half its size."""
    image = cv2.imread(str(bus))
    assert image is not None
    return np.asarray(cv2.resize(image, (405, 540)), np.uint8)


def read(path: Path) -> bytes:
    return path.read_bytes()


async def collect(stream: DetectStream) -> list[Outcome]:
    return [outcome async for outcome in stream]


async def test_a_frame_comes_back_with_its_boxes_and_tag(service: Service, bus: Path) -> None:
    async with DetectStream(service.http_url) as stream:
        assert stream.model["name"] == "yolox_nano"
        assert stream.labels[5] == "bus"
        assert stream.offer(bus, tag="mine", captured_s=12.5)
        outcome = await anext(stream)
    assert isinstance(outcome, Result)
    assert (outcome.seq, outcome.tag, outcome.captured_s) == (1, "mine", 12.5)
    assert (outcome.width, outcome.height) == (810, 1080)
    best = next(iter(outcome.detections))
    assert (best.label, best.class_id) == ("bus", 5)
    np.testing.assert_allclose(best.box, (13, 231, 801, 735), atol=3)
    assert outcome.round_trip_s > 0
    assert set(outcome.timings_ms) == {"queue_ms", "infer_ms", "server_ms"}


async def test_bytes_arrays_and_reduced_arrays_mean_the_same_boxes(service: Service, bus: Path) -> None:
    image = cv2.imread(str(bus))
    assert image is not None
    options, encoded = Options(max_side=540), read(bus)
    async with DetectStream(service.ws_url, mode="all", options=options) as stream:
        for frame in (encoded, np.asarray(image, np.uint8)):
            await stream.send(frame)
        found = [await anext(stream), await anext(stream)]
    for outcome in found:
        assert isinstance(outcome, Result)
        assert (outcome.width, outcome.height) == (810, 1080)
        best = next(iter(outcome.detections))
        assert best.label == "bus"
        np.testing.assert_allclose(best.box, (13, 231, 801, 735), atol=15)


async def test_mode_all_answers_every_frame_in_order(service: Service, pixels: Pixels) -> None:
    async with DetectStream(service.ws_url, mode="all", params={"conf_threshold": 0.5}) as stream:
        reader = asyncio.create_task(collect(stream))
        for index in range(60):
            await stream.send(pixels, tag=index)
        await stream.finish()
        outcomes = await reader
        assert [outcome.tag for outcome in outcomes] == list(range(60))
        assert all(isinstance(outcome, Result) for outcome in outcomes)
        ledger = stream.ledger
        assert (ledger.offered, ledger.sent, ledger.results, ledger.in_flight) == (60, 60, 60, 0)
        assert ledger.balance == 0
        with pytest.raises(StreamClosed):
            await stream.send(pixels)


async def test_live_takes_the_newest_and_leaves_out_the_rest(service: Service, pixels: Pixels) -> None:
    async with DetectStream(service.ws_url, options=Options(fps=500)) as stream:
        reader = asyncio.create_task(collect(stream))
        taken: list[int] = []
        index = 0
        while index < 400 or stream.ledger.results <= 10:
            if stream.offer(pixels, tag=index):
                taken.append(index)
            index += 1
            await asyncio.sleep(0.002)
        await stream.finish()
        outcomes = await reader
    assert sorted(outcome.tag for outcome in outcomes) == taken
    ledger = stream.ledger
    assert ledger.balance == 0
    assert ledger.offered == index
    assert ledger.skipped["window"] > 0
    assert ledger.results > 10
    assert len(taken) < index


async def test_parameters_change_in_mid_stream(service: Service, bus: Path) -> None:
    async with DetectStream(service.ws_url, mode="all", params=Params(classes=["bus"])) as stream:
        await stream.send(bus)
        first = await anext(stream)
        number = await stream.configure(classes=["person"], conf_threshold=0.6)
        assert (number, stream.effective["classes"]) == (1, ["person"])
        await stream.send(bus)
        second = await anext(stream)
        with pytest.raises(BadInput, match=r"'buss'.*allowed"):
            await stream.configure(classes=["buss"])
        await stream.send(bus)
        third = await anext(stream)
    assert isinstance(first, Result)
    assert isinstance(second, Result)
    assert isinstance(third, Result)
    assert (set(first.detections.labels), first.cfg) == ({"bus"}, 0)
    assert (set(second.detections.labels), second.cfg) == ({"person"}, 1)
    assert (third.detections.labels, third.cfg) == (second.detections.labels, 1)


async def test_a_list_of_classes_that_no_hello_holds_follows_it(service: Service, bus: Path) -> None:
    classes = ["bus"] * 1000
    async with DetectStream(service.http_url, params=Params(classes=classes), mode="all") as stream:
        assert stream.effective["classes"] == ["bus"]
        assert stream.offer(bus)
        outcome = await anext(stream)
        assert isinstance(outcome, Result)
        assert {detection.label for detection in outcome.detections} == {"bus"}
    with pytest.raises(BadInput, match="unicorn"):
        async with DetectStream(service.http_url, params=Params(classes=[*classes, "unicorn"][1:])):
            pass


async def test_tracks_and_supervision(service: Service, bus: Path) -> None:
    sv = pytest.importorskip("supervision")
    async with DetectStream(service.ws_url, mode="all", params=Params(track=True)) as stream:
        ids = []
        for index in range(3):
            await stream.send(bus, captured_s=index / 10)
            outcome = await anext(stream)
            assert isinstance(outcome, Result)
            converted = outcome.detections.to_supervision()
            assert isinstance(converted, sv.Detections)
            assert converted.tracker_id is not None
            ids.append(converted.tracker_id.tolist())
    assert ids[0][:4] == ids[1][:4] == ids[2][:4]


async def test_a_paused_stream_takes_nothing_until_it_goes_on(service: Service, bus: Path) -> None:
    async with DetectStream(service.ws_url) as stream:
        await stream.pause()
        assert not stream.offer(bus)
        await stream.resume()
        assert stream.offer(bus, tag="after")
        assert (await anext(stream)).tag == "after"
        assert stream.ledger.skipped == {"paused": 1}


def test_the_synchronous_twin_does_the_same(service: Service, bus: Path) -> None:
    with DetectStreamSync(service.ws_url, mode="all", params={"classes": ["bus"]}) as stream:
        for index in range(5):
            stream.send(bus, tag=index)
        assert stream.configure(classes=["person"]) == 1
        stream.send(bus, tag="after")
        assert stream.next_outcome(timeout_s=60) is not None
        stream.finish()
        rest = list(stream)
        assert [outcome.tag for outcome in rest] == [1, 2, 3, 4, "after"]
        last = rest[-1]
        assert isinstance(last, Result)
        assert set(last.detections.labels) == {"person"}
        assert stream.ledger.balance == 0
        assert stream.model["version"] == "v1"
        assert stream.labels[0] == "person"
        assert stream.state.phase is Phase.CLOSED
    with pytest.raises(StreamClosed):
        stream.offer(bus)
