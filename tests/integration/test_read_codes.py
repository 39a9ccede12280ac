"""Codes are read by sandboxed decoders, for answers to POSTs and for results of streams."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from inference.core.detections import Boxes
from streamer.decoding.code_reader import CodeImage, CodeReader, Reading
from streamer.decoding.decoder_pool import DecoderPool
from streamer.decoding.fork_client import READING_FORK_SERVER
from streamer.decoding.refused_digests import RefusedDigests
from streamer.imaging.code_text import CodeText
from streamer.imaging.image_header import Limits
from tests.helpers.printed_codes import (
    EAN_BOX,
    EAN_TEXT,
    EMPTY_BOX,
    QR_BOX,
    QR_TEXT,
    SIDE_PX,
    code_model,
    jpeg,
    sheet,
)
from tests.helpers.service import Service
from tests.helpers.wire_client import WireClient
from tests.unit.test_code_reader import FakeMetrics

SOON_S = 60.0
QR, EAN = CodeText(QR_TEXT, "QR Code"), CodeText(EAN_TEXT, "EAN-13")
BOXES = np.array([QR_BOX, EMPTY_BOX, EAN_BOX], np.float32)


class VideoFrame:
    """A decoded frame; implements `imaging.frame.DecodedFrame`."""

    width = height = SIDE_PX
    nbytes = SIDE_PX * SIDE_PX * 3

    def pixels(self) -> npt.NDArray[np.uint8]:
        return sheet()

    def grey(self) -> npt.NDArray[np.uint8]:
        grey: npt.NDArray[np.uint8] = cv2.cvtColor(sheet(), cv2.COLOR_BGR2GRAY)
        return grey


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[DecoderPool]:
    pool = DecoderPool(
        2, input_bytes=4 << 20, digests=RefusedDigests(tmp_path / "digests"), module=READING_FORK_SERVER
    )
    pool.start()
    pool.attach(None)
    try:
        async with asyncio.timeout(SOON_S):
            while pool.alive < 2:
                await asyncio.sleep(0.02)
        yield pool
    finally:
        pool.close()


async def read(pool: DecoderPool, image: CodeImage, boxes: Boxes) -> list[CodeText | None]:
    """Read boxes; again if a decoder was lost, as may happen where the processor is given to others."""
    metrics = FakeReadings()
    reader = CodeReader(pool, Limits(), {"qr_code"}, 10.0, metrics=metrics, digests=RefusedDigests(None))
    async with asyncio.timeout(SOON_S):
        while True:
            done: asyncio.Future[Reading] = asyncio.get_running_loop().create_future()
            if reader.start(image, boxes, time.monotonic() + SOON_S, done.set_result):
                reading = await done
                if not metrics.outcomes.pop("failed", 0):
                    return reading.codes
            await asyncio.sleep(0.02)


class FakeReadings(FakeMetrics):
    """Counts readings, which take any time."""

    def observe(self, seconds: float, read: int, unread: int) -> None:
        assert seconds > 0
        self.codes = [self.codes[0] + read, self.codes[1] + unread]


async def test_a_decoder_reads_codes_in_its_sandbox(pool: DecoderPool) -> None:
    assert {"rlimits", "no_new_privs"} <= set(pool.protections)
    upright = CodeImage(jpeg(sheet()), 0, SIDE_PX, SIDE_PX)
    assert await read(pool, upright, BOXES) == [QR, None, EAN]
    turned = CodeImage(jpeg(np.ascontiguousarray(np.rot90(sheet()))), 1, SIDE_PX, SIDE_PX)
    assert await read(pool, turned, BOXES) == [QR, None, EAN]
    assert await read(pool, CodeImage(VideoFrame(), 0, SIDE_PX, SIDE_PX), BOXES) == [QR, None, EAN]


async def test_codes_larger_than_what_is_read_at_once_are_reduced_in_the_sandbox(pool: DecoderPool) -> None:
    large = cv2.resize(sheet(), None, fx=6, fy=6, interpolation=cv2.INTER_NEAREST)
    image = CodeImage(jpeg(large), 0, 6 * SIDE_PX, 6 * SIDE_PX)
    assert await read(pool, image, BOXES * 6) == [QR, None, EAN]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    model = str(code_model(tmp_path_factory.mktemp("models") / "codes.onnx"))
    settings = {
        "READ_CODES": "1",
        "READ_CODES_BUDGET_MS": "10000",
        "MODEL_V1_PATH": model,
        "MODEL_V2_PATH": model,
    }
    with Service(settings, log_level="debug") as running:
        yield running


def texts_of(detections: list[dict[str, Any]]) -> list[tuple[str, str | None, str | None]]:
    return [(each["label"], each.get("text"), each.get("format")) for each in detections]


ALL_TEXTS = [("qr_code", *QR), ("barcode", *EAN), ("qr_code", None, None), ("parcel", None, None)]


async def test_the_answer_to_a_post_has_the_texts(service: Service) -> None:
    image = jpeg(sheet())
    async with aiohttp.ClientSession() as session, asyncio.timeout(SOON_S):
        for version in ("v1", "v2"):
            found: list[tuple[str, str | None, str | None]] = []
            while found != ALL_TEXTS:  # a reading may fail where the processor is given to others
                async with session.post(
                    f"{service.http_url}/{version}/predict", data=io.BytesIO(image)
                ) as answer:
                    assert answer.status == 200
                    found = texts_of((await answer.json())["detections"])
                assert [label for label, *_ in found] == [label for label, *_ in ALL_TEXTS]


async def test_later_results_of_a_stream_have_the_texts(service: Service) -> None:
    image = jpeg(sheet())
    async with WireClient(f"{service.ws_url}/v1/stream") as client, asyncio.timeout(SOON_S):
        await client.hello()
        seq, result = 0, {"text": None}
        while not result.get("text") or result["text"][:2] != [QR_TEXT, EAN_TEXT]:
            seq += 1
            await client.send_frame(seq, image, ts=seq * 50_000)
            result = await client.receive("result")
            assert seq > 1 or "text" not in result, "the first result does not wait for its texts"
        assert result["text"] == [QR_TEXT, EAN_TEXT, None, None]
        assert result["format"] == ["QR Code", "EAN-13", None, None]
    assert service.metric("object_detection_code_readings_total", outcome="done") > 0
    assert service.metric("object_detection_codes_total", result="read") > 0
    assert EAN_TEXT not in service.log
    assert QR_TEXT not in service.log
