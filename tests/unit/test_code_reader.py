"""Codes are read by idle decoders only, in time or not at all, and whatever a decoder answers."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from streamer.decoding.code_reader import IDLE_DECODERS, LARGE_PX, CodeImage, CodeReader, Reading
from streamer.decoding.decode_job import DecoderLost, Work, decoder_crash_error
from streamer.decoding.messages import Answer, Task, Verdict
from streamer.decoding.refused_digests import RefusedDigests
from streamer.imaging.code_text import CodeText
from streamer.imaging.image_header import Limits

BOXES = np.array([[0, 0, 10, 10, 0.9, 0], [20, 20, 30, 30, 0.8, 0]], np.float32)
URL = CodeText("https://example.org", "QR Code")
IMAGE = CodeImage(b"image", 1, 640, 480)
#: End of readings that nothing may end early.
FAR_S = 3600.0


class FakePool:
    """Keeps the work that it takes, of which it does as much as tests answer."""

    def __init__(self) -> None:
        self.on_finished: Callable[[], None] | None = None
        self.idle = IDLE_DECODERS
        self.works: list[Work] = []
        self.requests: list[dict[str, Any]] = []

    def submit_optional(self, work: Work) -> bool:
        self.works.append(work)
        length = int.from_bytes(os.pread(work.descriptor, 4, 0), "little")
        self.requests.append(json.loads(os.pread(work.descriptor, length, 4)))
        return True

    def finish(self) -> None:
        """Tell the reader that a decoder has finished its work."""
        assert self.on_finished is not None
        self.on_finished()

    def answer(self, data: bytes, text: str | None = None) -> None:
        """Answer the oldest work as a decoder does that has written ``data``."""
        work = self.works.pop(0)
        os.pwrite(work.descriptor, data, 0)
        said = str(len(data)) if text is None else text
        work.done(Answer(Verdict.DONE, 1, 640, 480, decode_ms=20.0, cpu_ms=10.0, text=said))
        self.finish()


class FakeMetrics:
    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.codes = [0, 0]

    def count(self, outcome: str) -> None:
        self.outcomes[outcome] += 1

    def observe(self, seconds: float, read: int, unread: int) -> None:
        assert seconds == pytest.approx(0.02)
        self.codes = [self.codes[0] + read, self.codes[1] + unread]


class Rig:
    def __init__(self) -> None:
        self.pool, self.metrics, self.charged = FakePool(), FakeMetrics(), 0.0
        self.reader = CodeReader(
            self.pool, Limits(), {"qr_code"}, 0.1, metrics=self.metrics, digests=RefusedDigests(None)
        )

    def charge(self, cpu_s: float) -> None:
        self.charged += cpu_s

    def read(self, end_s: float) -> asyncio.Task[list[CodeText | None]]:
        return asyncio.create_task(self.reader.read(IMAGE, BOXES, end_s, self.charge))


@pytest.fixture
async def rig() -> Rig:
    return Rig()


def test_which_boxes_are_codes_is_decided_by_their_labels() -> None:
    reader, labels = Rig().reader, ("car", "QR_Code", "qr_code")
    rows = np.array([[0, 0, 1, 1, 0.5, number] for number in (2, 0, 1, 7)], np.float32)

    def codes(labels: tuple[str, ...], stated: tuple[str, ...] | None = None) -> list[int]:
        model = SimpleNamespace(labels=labels, code_classes=stated)
        return [int(row) for row in reader.rows_of_codes(rows, model)]

    assert codes(labels) == [0, 2]
    assert codes(()) == []
    assert codes(labels, ("car",)) == [1]  # what the manifest states counts, not the setting
    assert codes(labels, ()) == []


async def test_texts_are_returned_charged_and_counted(rig: Rig) -> None:
    reading = rig.read(time.monotonic() + FAR_S)
    await asyncio.sleep(0)
    (work,), (request,) = rig.pool.works, rig.pool.requests
    assert (work.task, work.rotation, work.data) == (Task.READ_CODES, 1, b"image")
    assert request["boxes"] == BOXES[:, :4].tolist()
    rig.pool.answer(json.dumps([None, URL]).encode())
    assert await reading == [None, URL]
    assert rig.charged == pytest.approx(0.01)
    assert (rig.metrics.outcomes, rig.metrics.codes) == ({"done": 1}, [1, 1])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(work.descriptor)


async def test_a_reading_waits_for_an_idle_decoder(rig: Rig) -> None:
    rig.pool.idle = IDLE_DECODERS - 1
    reading = rig.read(time.monotonic() + FAR_S)
    await asyncio.sleep(0)
    assert not rig.pool.works
    rig.pool.finish()
    await asyncio.sleep(0)
    assert not rig.pool.works, "a decoder has finished, but no other one is idle"
    rig.pool.idle = IDLE_DECODERS
    rig.pool.finish()
    while not rig.pool.works:
        await asyncio.sleep(0)
    rig.pool.answer(json.dumps([URL, None]).encode())
    assert await reading == [URL, None]


async def test_the_end_of_the_time_ends_a_reading_that_waits_or_runs(rig: Rig) -> None:
    rig.pool.idle = IDLE_DECODERS - 1
    assert await rig.read(time.monotonic()) == []
    assert rig.metrics.outcomes == {"busy": 1}
    assert not rig.reader._waiting
    rig.pool.idle = IDLE_DECODERS
    assert await rig.read(time.monotonic() + 1.0) == []  # long enough to begin on a busy machine
    assert rig.metrics.outcomes == {"busy": 1, "late": 1}
    rig.pool.answer(json.dumps([URL, None]).encode())  # too late for the caller, who is charged nevertheless
    assert rig.charged == pytest.approx(0.01)
    assert rig.metrics.outcomes == {"busy": 1, "late": 1}, "each reading has one outcome"


async def test_a_caller_that_leaves_while_it_waits_does_not_take_the_turn_of_another(rig: Rig) -> None:
    rig.pool.idle = IDLE_DECODERS - 1
    first, second = rig.read(time.monotonic() + FAR_S), rig.read(time.monotonic() + FAR_S)
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    rig.pool.idle = IDLE_DECODERS
    rig.pool.finish()
    while not rig.pool.works:
        await asyncio.sleep(0)
    rig.pool.answer(json.dumps([URL, URL]).encode())
    assert await second == [URL, URL]


async def test_a_reading_that_is_woken_in_vain_keeps_its_place(rig: Rig) -> None:
    rig.pool.idle = IDLE_DECODERS - 1
    images = [CodeImage(name, 0, 640, 480) for name in (b"first", b"second")]
    readings = [
        asyncio.create_task(rig.reader.read(image, BOXES, time.monotonic() + FAR_S, rig.charge))
        for image in images
    ]
    await asyncio.sleep(0)
    rig.pool.finish()
    for _ in range(10):
        await asyncio.sleep(0)
    rig.pool.idle = IDLE_DECODERS
    rig.pool.finish()
    while not rig.pool.works:
        await asyncio.sleep(0)
    assert rig.pool.works[0].data == b"first"
    for _ in readings:
        while not rig.pool.works:
            await asyncio.sleep(0)
        rig.pool.answer(json.dumps([None, None]).encode())
    await asyncio.gather(*readings)


@pytest.mark.parametrize(("data", "text"), [(b"{}", None), (b"[]", ""), (b"[]", "x"), (b"[]", "99999999")])
async def test_an_answer_that_is_no_reading_gives_no_texts(rig: Rig, data: bytes, text: str | None) -> None:
    reading = rig.read(time.monotonic() + FAR_S)
    await asyncio.sleep(0)
    rig.pool.answer(data, text)
    assert await reading == [None, None]
    assert rig.metrics.outcomes == {"failed": 1}


async def test_an_image_that_ends_its_decoder_is_not_read_again(rig: Rig) -> None:
    for outcome, sent_again in ((DecoderLost("killed"), True), (decoder_crash_error(), False)):
        reading = rig.read(time.monotonic() + FAR_S)
        await asyncio.sleep(0)
        rig.pool.works.pop().done(outcome)
        assert await reading == [None, None]
        again = rig.read(time.monotonic() + FAR_S)
        await asyncio.sleep(0)
        assert bool(rig.pool.works) is sent_again
        if sent_again:
            rig.pool.answer(json.dumps([None, None]).encode())
        assert await again == [None, None]


async def test_large_images_are_read_one_at_a_time(rig: Rig) -> None:
    large = CodeImage(b"large", 0, LARGE_PX, 2)
    readings: list[Reading] = []
    assert rig.reader.start(large, BOXES, FAR_S, readings.append)
    assert not rig.reader.start(large, BOXES, FAR_S, readings.append)
    assert rig.reader.start(IMAGE, BOXES, FAR_S, readings.append)
    rig.pool.answer(json.dumps([None, URL]).encode())
    assert readings[0].codes == [None, URL]
    assert rig.reader.start(large, BOXES, FAR_S, readings.append)


class VideoFrame:
    width, height = 4, 2
    nbytes = 24

    def pixels(self) -> npt.NDArray[np.uint8]:
        raise AssertionError("grey pixels are enough")

    def grey(self) -> npt.NDArray[np.uint8]:
        return np.arange(8, dtype=np.uint8).reshape(2, 4)


async def test_a_video_frame_is_sent_as_grey_pixels(rig: Rig) -> None:
    frame = CodeImage(VideoFrame(), 0, 4, 2)
    assert rig.reader.start(frame, BOXES, FAR_S, lambda _: None)
    (work,) = rig.pool.works
    assert (work.task, bytes(work.data)) == (Task.READ_GREY, bytes(range(8)))
    assert (work.target.input_width, work.target.input_height) == (4, 2)
    rig.pool.answer(b"[null, null]")
