"""The bundled clip plays at once in any browser, loops without a jump, and matches what its script draws."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import av
import numpy as np
import pytest
import zxingcpp

from data import make_sample
from streamer.assets import SAMPLE_FILE
from tests.e2e.browser import Image


@pytest.fixture(scope="module")
def images() -> list[Image]:
    with av.open(str(SAMPLE_FILE)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def boxes_of(data: bytes) -> Iterator[str]:
    """Yield the names of an MP4 file's top-level boxes."""
    at = 0
    while at < len(data):
        yield data[at + 4 : at + 8].decode()
        at += int.from_bytes(data[at : at + 4], "big")


def test_every_browser_plays_it_and_at_once() -> None:
    data = SAMPLE_FILE.read_bytes()
    assert len(data) <= 1_200_000
    names = list(boxes_of(data))
    assert names.index("moov") < names.index("mdat")
    with av.open(str(SAMPLE_FILE)) as container:
        (stream,) = container.streams
        assert isinstance(stream, av.VideoStream)
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (640, 360, make_sample.FPS)
        assert stream.frames == make_sample.FPS * make_sample.SECONDS


def test_it_moves_and_loops_without_a_jump(images: list[Image]) -> None:
    steps = [
        float(np.abs(first.astype(int) - second).mean()) for first, second in pairwise([*images, images[0]])
    ]
    assert min(steps) > 0.5
    assert steps[-1] < 1.5 * float(np.median(steps))


def test_its_codes_can_be_read(images: list[Image]) -> None:
    read = {code.text for image in images[::12] for code in zxingcpp.read_barcodes(image)}
    assert read >= {"1042-7781", "3310-0625", "5527-1904", "8080-2024", "10042778", "1004-2778 bay 4"}


def test_it_is_what_the_script_makes(images: list[Image]) -> None:
    made = make_sample.images()
    first = next(made)
    assert np.array_equal(first, next(make_sample.images()))
    for shown, drawn in zip(images, [first, next(made)], strict=False):
        assert float(np.abs(shown.astype(int) - drawn).mean()) < 6
