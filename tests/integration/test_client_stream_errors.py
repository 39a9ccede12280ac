"""Refusals, bugs, cancellation and readers that are too slow end or limit a stream of the client library."""

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
