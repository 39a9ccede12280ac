"""The decoder of the sampling process returns exact pixels, and its crashes do not harm the caller."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import psutil
import pytest

from streamer.decoding.single_decoder import DecoderUnavailable, SingleDecoder
from streamer.imaging.image_header import ImageError, Limits
from tests.helpers.decoders import faulty_fork_server as faulty
from tests.helpers.decoders.bench import image


@pytest.fixture
def decoder() -> Iterator[SingleDecoder]:
    decoder = SingleDecoder(Limits(), "tests.helpers.decoders.faulty_fork_server")
    decoder.prepare()
    yield decoder
    decoder.close()


def server_of(decoder: SingleDecoder) -> psutil.Process:
    assert decoder._decoder is not None
    return psutil.Process(decoder._decoder.server.pid)


def test_pixels_are_those_of_decoding_in_place(decoder: SingleDecoder) -> None:
    shades = np.random.default_rng(1).integers(0, 255, (48, 80, 3), np.uint8)
    data = cv2.imencode(".png", shades)[1].tobytes()
    assert np.array_equal(decoder.decode(data, rotation=0, target=None), shades)
    assert np.array_equal(decoder.decode(data, rotation=2, target=None), shades[::-1, ::-1])


def test_a_large_jpeg_is_decoded_at_a_fraction_where_less_is_asked_for(decoder: SingleDecoder) -> None:
    data = cv2.imencode(".jpg", np.full((1600, 1600, 3), 90, np.uint8))[1].tobytes()
    assert decoder.decode(data, rotation=0, target=(160, 160)).shape == (400, 400, 3)
    assert decoder.decode(data, rotation=0, target=None).shape == (1600, 1600, 3)


@pytest.mark.parametrize("width", [faulty.SEGFAULT, faulty.HANG, faulty.HOARD, faulty.GARBAGE])
def test_an_image_that_does_harm_is_refused_and_the_next_one_decoded(
    decoder: SingleDecoder, width: int
) -> None:
    with pytest.raises((ImageError, OSError)):
        decoder.decode(image(width), rotation=0, target=None)
    decoder.prepare()
    assert decoder.decode(image(30), rotation=0, target=None).shape == (48, 30, 3)


def test_refused_images_leave_nothing_behind(decoder: SingleDecoder) -> None:
    damaged = image(30)[:-30]
    for _ in range(3):
        with pytest.raises(ImageError):
            decoder.decode(damaged + bytes(28) + b"\xff\xd9", rotation=0, target=None)
    assert decoder._decoder is not None
    assert len(decoder._decoder.group.arena._pages.free_runs) == 1


def test_without_preparation_nothing_is_started(decoder: SingleDecoder) -> None:
    lazy = SingleDecoder(Limits())
    assert not lazy.ready
    with pytest.raises(DecoderUnavailable):
        lazy.decode(image(31), rotation=0, target=None)


def test_nothing_is_left_after_the_end(decoder: SingleDecoder) -> None:
    processes = [server_of(decoder), *server_of(decoder).children()]
    assert len(processes) == 2
    decoder.close()
    assert psutil.wait_procs(processes, timeout=60)[1] == []
    assert not decoder.ready
