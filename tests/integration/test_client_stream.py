"""Tests the client library against the real service: both modes, configure, refusals, synchronous client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from streamer.client import (
    BadInput,
    ConnectionFailed,
    DetectStream,
    DetectStreamSync,
    Drop,
    FrameError,
    Options,
    Outcome,
    Params,
    Phase,
    Rejected,
    Result,
    State,
    StreamClosed,
    UnreadOutcomes,
    frame_stream,
)
from streamer.client import sender as sender_module
from tests.conftest import shared
from tests.helpers.service import PATIENT, Service

KEY = "dummy-key"
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


@pytest.fixture(scope="module")
def guarded(yolox_nano: Path) -> Iterator[Service]:
    """Yield a service that requires a key."""
    with Service(PATIENT | {"MODEL_V1_PATH": str(yolox_nano), "API_KEYS": KEY}) as running:
        yield running


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


async def test_a_frame_that_cannot_be_decoded_costs_only_itself(service: Service, bus: Path) -> None:
    cut = read(bus)[:20_000]
    async with DetectStream(service.ws_url, mode="all") as stream:
        await stream.send(b"not an image", tag="unreadable")
        await stream.send(cut, tag="cut")
        await stream.send(bus, tag="good")
        found = {outcome.tag: outcome for outcome in [await anext(stream) for _ in range(3)]}
        assert stream.ledger.balance == 0
    unreadable, dropped = found["unreadable"], found["cut"]
    assert isinstance(unreadable, FrameError)
    assert (unreadable.seq, unreadable.code) == (0, "unreadable")
    assert isinstance(dropped, Drop)
    assert dropped.reason == "decode_error"
    assert dropped.message
    assert isinstance(found["good"], Result)


@pytest.mark.parametrize("mode", ["live", "all"])
async def test_what_is_no_frame_raises_and_the_stream_lives(service: Service, bus: Path, mode: str) -> None:
    """Reject values that are not frames, such as OpenCV's ``(False, None)`` of a camera without a frame."""
    no_frames: list[Any] = [None, (False, None), 7, [], np.zeros((4, 4, 3)), np.zeros((0, 0, 3), np.uint8)]
    async with DetectStream(service.ws_url, mode=mode) as stream:
        for value in no_frames:
            with pytest.raises(BadInput):
                stream.offer(value)
            with pytest.raises(BadInput):
                await stream.send(value)
        await stream.send(bus, tag="good")
        assert (await anext(stream)).tag == "good"
        assert (stream.ledger.offered, stream.ledger.balance) == (1, 0)


async def test_what_the_server_refuses_for_good_is_said_and_not_tried_again(service: Service) -> None:
    states: list[State] = []
    with pytest.raises(Rejected, match="model version") as caught:
        async with DetectStream(f"{service.ws_url}/v7/stream", on_state=states.append):
            pass
    assert caught.value.code == 404
    assert [state.phase for state in states] == [Phase.CONNECTING, Phase.CLOSED]
    with pytest.raises(BadInput, match=r"classes\[0\].*'buss'"):
        async with DetectStream(service.ws_url, params={"classes": ["buss"]}):
            pass
    with pytest.raises(Rejected, match=r"detect\.v1"):
        async with DetectStream(f"{service.ws_url}/health"):
            pass


async def test_nobody_there_is_said_after_the_time_that_was_given() -> None:
    states: list[State] = []
    options = Options(give_up_after_s=2)
    with pytest.raises(ConnectionFailed, match="Connection refused"):
        async with DetectStream("ws://127.0.0.1:9", options=options, on_state=states.append):
            pass
    assert Phase.WAITING in [state.phase for state in states]
    once = Options(give_up_after_s=0)
    with pytest.raises(ConnectionFailed):
        async with DetectStream("ws://127.0.0.1:9", options=once):
            pass


async def test_a_key_opens_the_stream_and_is_never_shown(
    guarded: Service, bus: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    states: list[State] = []
    async with DetectStream(guarded.ws_url, token=KEY, on_state=states.append) as stream:
        assert stream.offer(bus)
        assert isinstance(await anext(stream), Result)
        assert KEY not in repr(stream.state)
    wrong = "wrong-dummy-secret"
    for token, query in ((wrong, ""), (None, ""), (wrong, f"?token={wrong}"), (None, f"?token={wrong}")):
        with pytest.raises(Rejected, match=r"token is missing|hello\.token|as the token") as caught:
            async with DetectStream(
                f"{guarded.ws_url}/v1/stream{query}", token=token, on_state=states.append
            ):
                pass
        assert caught.value.code in ((400,) if query else (401, 4401))
        assert wrong not in str(caught.value)
    shown = "".join(capfd.readouterr()) + caplog.text + repr(states)
    assert KEY not in shown
    assert wrong not in shown


async def test_outcomes_that_nobody_reads_are_bounded(
    service: Service, bus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_stream, "UNREAD_MAX", 3)
    async with DetectStream(service.ws_url, mode="all") as stream:
        taken = 0
        # There may be more than 3, because outcomes in flight may still arrive after the limit is reached.
        with pytest.raises(UnreadOutcomes, match=r"^([3-9]|\d\d+) outcomes"):
            while True:
                await stream.send(bus)
                taken += 1
                await asyncio.sleep(0.02)
        with pytest.raises(UnreadOutcomes):
            stream.offer(bus)
        await stream.finish()
        assert len([outcome async for outcome in stream]) == taken
        assert stream.ledger.balance == 0


async def test_closing_half_way_ends_what_was_on_its_way(service: Service, pixels: Pixels) -> None:
    stream = DetectStream(service.ws_url, mode="all")
    with pytest.raises(StreamClosed):
        await stream.send(pixels)
    async with stream:
        for _ in range(4):
            await stream.send(pixels)
        await stream.close()
        outcomes = await collect(stream)
    assert len(outcomes) == 4
    assert stream.ledger.balance == 0
    assert stream.ledger.in_flight == stream.ledger.waiting == 0
    with pytest.raises(BadInput, match="mode"):
        DetectStream(service.ws_url, mode="some")


async def test_a_capture_time_that_the_wire_cannot_carry_is_refused(service: Service, bus: Path) -> None:
    async with DetectStream(service.ws_url) as stream:
        for wrong in (-1.0, float("nan"), float("inf"), 1e15):
            with pytest.raises(BadInput, match="captured_s"):
                stream.offer(bus, captured_s=wrong)
            with pytest.raises(BadInput, match="captured_s"):
                await stream.send(bus, captured_s=wrong)
        assert stream.offer(bus, captured_s=0.0)
        assert isinstance(await anext(stream), Result)


async def test_a_bug_while_sending_ends_the_stream_instead_of_hanging_it(
    service: Service, bus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sender_module, "encode", broken)
    stream = DetectStream(service.ws_url)
    async with stream:
        stream.offer(bus, tag="lost")
        assert (await anext(stream)).tag == "lost"
        with pytest.raises(ZeroDivisionError):
            await anext(stream)
    assert stream.ledger.balance == 0


async def test_an_exception_in_the_block_comes_through(service: Service, bus: Path) -> None:
    stream = DetectStream(service.ws_url)
    with pytest.raises(ZeroDivisionError):
        async with stream:
            stream.offer(bus)
            raise ZeroDivisionError
    assert stream.ledger.balance == 0
    assert stream.state.phase is Phase.CLOSED


async def test_cancelling_the_entrance_leaves_nothing_behind() -> None:
    stream = DetectStream("ws://127.0.0.1:9", options=Options(give_up_after_s=None))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            async with stream:
                pass
    assert stream.state.phase is Phase.CLOSED


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


def test_the_synchronous_twin_raises_what_the_other_raises(service: Service, bus: Path) -> None:
    with pytest.raises(Rejected), DetectStreamSync(f"{service.ws_url}/v7/stream"):
        pass
    with pytest.raises(BadInput):
        DetectStreamSync("gopher://host")
    with DetectStreamSync(service.ws_url) as stream:
        stream.pause()
        assert not stream.offer(bus)
        stream.resume()
        assert stream.offer(bus)
        assert stream.next_outcome(timeout_s=60) is not None
        assert stream.next_outcome(timeout_s=0.05) is None
        stream.close()
