"""Candidates cross the socket unchanged, and any other bytes are refused."""

from __future__ import annotations

import dataclasses

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.imaging.decode import Image
from streamer.sampling.candidate import (
    PIXELS,
    MalformedCandidate,
    ShadowResult,
    pack_candidate,
    unpack_candidate,
)
from streamer.sampling.candidate_image import encoded, image_of
from tests.helpers.candidates import boxes, candidate


def test_a_candidate_comes_back_as_it_was() -> None:
    before = candidate(
        0.9, 0.4, after=boxes(0.8), rotation=3, note="wrong", reported=True, data=memoryview(b"abc")
    )
    after = unpack_candidate(pack_candidate(before))
    assert after.before is None
    assert (after.stream, after.data, after.note, after.rotation) == (before.stream, b"abc", "wrong", 3)
    np.testing.assert_array_equal(after.boxes, before.boxes)
    np.testing.assert_array_equal(after.after, boxes(0.8))


@given(st.binary(max_size=200))
def test_other_bytes_are_refused_with_a_word(data: bytes) -> None:
    with pytest.raises(MalformedCandidate):
        unpack_candidate(data)


def test_what_another_model_found_comes_along() -> None:
    shadow = ShadowResult("v2", "small", "cd" * 32, boxes(0.6, label=1))
    after = unpack_candidate(pack_candidate(candidate(0.9, shadow=shadow))).shadow
    assert after is not None
    assert (after.version, after.model_name, after.model_sha256) == ("v2", "small", "cd" * 32)
    np.testing.assert_array_equal(after.boxes, shadow.boxes)


@pytest.mark.parametrize(
    "change", [{"boxes": b"123"}, {"boxes": np.full((1, 6), np.nan, "<f4").tobytes()}, {"other": 1}]
)
def test_a_field_that_is_wrong_is_refused(change: dict[str, object]) -> None:
    fields = msgpack.unpackb(pack_candidate(candidate(0.5)))
    with pytest.raises(MalformedCandidate):
        unpack_candidate(msgpack.packb(fields | change))


class Decoded:
    """A frame of a video, whose pixels are made only when somebody calls ``pixels()``."""

    width, height = 6, 4

    def __init__(self) -> None:
        self.asked = 0

    @property
    def nbytes(self) -> int:
        return 72

    def pixels(self) -> Image:
        self.asked += 1
        return np.arange(72, dtype=np.uint8).reshape(4, 6, 3)


def test_an_image_of_a_video_crosses_as_pixels_that_are_made_at_the_last_moment() -> None:
    image = Decoded()
    before = candidate(0.9, data=image, width=6, height=4)
    assert (before.size_bytes, image.asked) == (72, 0)
    after = unpack_candidate(pack_candidate(before))
    assert (after.source, after.size_bytes, image.asked) == (PIXELS, 72, 1)
    np.testing.assert_array_equal(image_of(after, (160, 160)), image.pixels())
    small = encoded(after)
    assert (small.source, small.size_bytes < 2000) == ("encoded_q95", True)
    assert image_of(small, (160, 160)).shape == (4, 6, 3)
    assert encoded(small) is small
    cut = dataclasses.replace(after, height=5)
    with pytest.raises(MalformedCandidate, match="72 bytes are no 6x5 pixels"):
        unpack_candidate(pack_candidate(cut))
