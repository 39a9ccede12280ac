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
from streamer.cli.main import main
from streamer.decoding.code_reader import CodeImage, CodeReader, Reading
from streamer.decoding.decoder_pool import DecoderPool
from streamer.decoding.fork_client import READING_FORK_SERVER
from streamer.decoding.refused_digests import RefusedDigests
from streamer.imaging.code_text import CodeText
from streamer.imaging.decode import decode
from streamer.imaging.draw import annotate
from streamer.imaging.image_header import Limits, read_header
from tests.helpers.printed_codes import (
    EAN_BOX,
    EAN_TEXT,
    EMPTY_BOX,
    LABELS,
    QR_BOX,
    QR_TEXT,
    SIDE_PX,
    code_model,
    jpeg,
    sheet,
)
from tests.helpers.service import PATIENT, Service
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
    folder = tmp_path_factory.mktemp("models")
    model, other = code_model(folder / "codes.onnx"), code_model(folder / "bars.onnx")
    other.with_suffix(".json").write_text('{"code_classes": ["barcode"]}')
    settings = PATIENT | {
        "READ_CODES": "1",
        "READ_CODES_BUDGET_MS": "10000",
        "MODEL_V1_PATH": str(model),
        "MODEL_V2_PATH": str(other),
    }
    with Service(settings, log_level="debug") as running:
        yield running


def texts_of(detections: list[dict[str, Any]]) -> list[tuple[str, str | None, str | None]]:
    return [(each["label"], each.get("text"), each.get("format")) for each in detections]


ALL_TEXTS = [("qr_code", *QR), ("barcode", *EAN), ("qr_code", None, None), ("parcel", None, None)]
#: The manifest of this version says that only barcodes are codes.
BARCODES = [("qr_code", None, None), *ALL_TEXTS[1:]]


async def test_the_answer_to_a_post_has_the_texts(service: Service) -> None:
    image = jpeg(sheet())
    async with aiohttp.ClientSession() as session, asyncio.timeout(SOON_S):
        for version, expected in (("v1", ALL_TEXTS), ("v2", BARCODES)):
            found: list[tuple[str, str | None, str | None]] = []
            while found != expected:  # a reading may fail where the processor is given to others
                async with session.post(
                    f"{service.http_url}/{version}/predict", data=io.BytesIO(image)
                ) as answer:
                    assert answer.status == 200
                    found = texts_of((await answer.json())["detections"])
                assert [label for label, *_ in found] == [label for label, *_ in ALL_TEXTS]


def test_the_command_prints_texts_in_its_table(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sheet.jpg"
    path.write_bytes(jpeg(sheet()))

    def printed() -> list[str]:
        assert main(["predict", str(path), "--url", service.http_url]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]

    deadline = time.monotonic() + SOON_S
    while not (lines := printed())[0].endswith(QR_TEXT) and time.monotonic() < deadline:
        pass  # a reading may fail where the processor is given to others
    assert lines[0].split()[0] == "qr_code"
    assert lines[0].endswith(f"  {QR_TEXT}")
    assert lines[1].endswith(f"  {EAN_TEXT}")
    assert lines[2].split()[-1] == "240.0"  # a box without a text


async def test_the_texts_are_drawn_in_an_annotated_answer(service: Service) -> None:
    """Check that an answer with texts shows what drawing the boxes with these texts does."""
    image = jpeg(sheet())
    url = f"{service.http_url}/v1/predict"
    async with aiohttp.ClientSession() as session, asyncio.timeout(SOON_S):
        while True:  # a reading may fail where the processor is given to others
            async with session.post(url, data=io.BytesIO(image)) as answer:
                detections = (await answer.json())["detections"]
            rows = np.array(
                [[*each["box"], each["score"], each["class_id"]] for each in detections], np.float32
            )
            texts = [each.get("text") for each in detections]
            canvas = decode(image, read_header(image, Limits())).pixels
            expected = annotate(canvas, rows, LABELS, texts)
            async with session.post(url, data=io.BytesIO(image), headers={"Accept": "image/jpeg"}) as answer:
                if await answer.read() == expected and texts[:2] == [QR_TEXT, EAN_TEXT]:
                    return


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
