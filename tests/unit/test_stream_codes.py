"""A stream's results never wait for the texts of codes, which come with later results."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest

from streamer.decoding.code_reader import IDLE_DECODERS, CodeReader
from streamer.decoding.refused_digests import RefusedDigests
from streamer.imaging.code_text import CodeText
from streamer.imaging.image_header import Limits
from streamer.protocol.wire import NO_FLAGS, Codec, Frame, FrameFlag
from streamer.scheduling.clients import NOBODY, Client
from streamer.scheduling.job import Prediction
from streamer.streams.flow_control import FlowControl
from streamer.streams.stream_codes import StreamCodes
from streamer.streams.stream_handle import StreamHandle
from tests.unit.test_code_reader import FakeMetrics, FakePool
from tests.unit.test_stream_handle import FakeCarrier

URL = CodeText("https://example.org", "QR Code")
#: A parcel, and a code on it.
ROWS = np.array([[0, 0, 400, 400, 0.9, 0], [10, 10, 90, 90, 0.8, 1]], np.float32)


MODEL = SimpleNamespace(labels=("parcel", "qr_code"), code_classes=None)


class FakeDispatcher:
    codes: CodeReader | None = None

    def __init__(self) -> None:
        self.charged_s = 0.0

    def charge(self, version: str, client: Client, cpu_s: float) -> None:
        assert (version, client) == ("v1", NOBODY)
        self.charged_s += cpu_s


class Rig:
    """A stream whose frames are detected at once, and decoders that read on demand."""

    def __init__(self) -> None:
        self.pool, self.metrics, self.dispatcher = FakePool(), FakeMetrics(), FakeDispatcher()
        self.carrier = FakeCarrier()
        digests = RefusedDigests(None)
        self.dispatcher.codes = CodeReader(
            self.pool, Limits(), {"qr_code"}, 0.1, metrics=self.metrics, digests=digests
        )
        codes = StreamCodes.of(self.dispatcher, "v1", MODEL, None)
        self.handle = StreamHandle(self.carrier, FlowControl(0), codes=codes)

    def frame(self, seq: int, boxes: npt.NDArray[np.float32], flags: FrameFlag = NO_FLAGS) -> object:
        """Send a frame in which ``boxes`` are found; return the texts in its result."""
        now = time.monotonic()
        frame = Frame(Codec.JPEG, seq, seq * 50_000, b"image%d" % seq, flags=flags)
        self.carrier.send_all(self.handle.flow.receive(frame, now))
        job = self.handle.take(now)
        assert job is not None
        job.finish(Prediction(640, 480, boxes, 1.0, 1.0, 1.0, 1.0, 1))
        result = self.carrier.sent[-1]
        assert (result["type"], result["seq"]) == ("result", seq)
        assert ("format" in result) == ("text" in result)
        return result.get("text")


@pytest.fixture
async def rig() -> Rig:
    return Rig()


async def test_a_text_comes_with_the_results_after_its_reading(rig: Rig) -> None:
    assert rig.frame(1, ROWS) is None
    (work,), (request,) = rig.pool.works, rig.pool.requests
    assert bytes(work.data) == b"image1"
    assert request["boxes"] == [ROWS[1, :4].tolist()], "parcels are not read"
    assert rig.frame(2, ROWS) is None
    assert len(rig.pool.works) == 1, "one frame of a stream is read at a time"
    rig.pool.answer(json.dumps([URL]).encode())
    assert rig.frame(3, ROWS[::-1].copy()) == [URL.text, None]
    assert rig.frame(4, ROWS[:1]) is None
    assert rig.dispatcher.charged_s == pytest.approx(0.01)


async def test_a_frame_for_which_no_decoder_is_idle_is_not_kept(rig: Rig) -> None:
    rig.pool.idle = IDLE_DECODERS - 1
    assert rig.frame(1, ROWS) is None
    assert rig.metrics.outcomes == {"busy": 1}
    rig.pool.idle = IDLE_DECODERS
    rig.pool.finish()
    assert not rig.pool.works
    rig.frame(2, ROWS)
    assert [bytes(work.data) for work in rig.pool.works] == [b"image2"]


async def test_frames_without_codes_are_not_read(rig: Rig) -> None:
    assert rig.frame(1, ROWS[:1]) is None
    assert rig.frame(2, ROWS[:0]) is None
    assert not rig.pool.works
    assert not rig.metrics.outcomes


async def test_a_discontinuity_makes_texts_unknown(rig: Rig) -> None:
    rig.frame(1, ROWS)
    rig.pool.answer(json.dumps([URL]).encode())
    assert rig.frame(2, ROWS) == [None, URL.text]
    assert rig.frame(3, ROWS, FrameFlag.DISCONTINUITY) is None


async def test_without_reading_a_result_has_no_field_more(rig: Rig) -> None:
    rig.dispatcher.codes = None
    assert StreamCodes.of(rig.dispatcher, "v1", MODEL, None) is None
    rig.handle = StreamHandle(rig.carrier, FlowControl(0))
    assert rig.frame(1, ROWS) is None
