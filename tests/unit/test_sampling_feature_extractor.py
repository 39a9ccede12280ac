"""The extractor decides which candidates become rows and what a row holds about its frame."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from streamer.drift.rows import NUMERIC, Row
from streamer.imaging.image_header import ImageError
from streamer.sampling.candidate import PIXELS, SampleCandidate
from streamer.sampling.feature_extractor import FeatureExtractor
from tests.helpers.candidates import candidate
from tests.unit.images import encode, scene, with_exif

T0 = 1_800_000_000.0


def value(row: Row | None, name: str) -> float:
    assert row is not None
    return float(row.numbers[NUMERIC.index(name)])


def test_a_row_holds_categories_numbers_and_motion() -> None:
    extractor = FeatureExtractor(5.0)
    first = extractor.extract(candidate(0.9, 0.3, at=T0))
    assert first is not None
    assert (first.stream, first.session, first.model) == ("gate", 0, "v1:" + "ab" * 6)
    assert (first.resolution, first.source, first.top_class) == ("160x96", "websocket", "cat")
    assert first.classes == (("cat", 1),)
    assert (value(first, "n_boxes"), value(first, "n_low")) == (1, 1)
    assert math.isnan(value(first, "frame_diff"))
    assert 0.1 < value(first, "jpeg_bpp") < 10
    assert extractor.extract(candidate(0.9, at=T0 + 3)) is None
    assert value(extractor.extract(candidate(0.9, at=T0 + 7)), "frame_diff") == 0
    assert math.isnan(value(extractor.extract(candidate(0.9, at=T0 + 60)), "frame_diff"))


def test_posted_images_have_no_motion_and_other_codecs_no_bits() -> None:
    extractor = FeatureExtractor(5.0)
    found = candidate(0.9, data=encode(scene(), ".png"))
    posted = dataclasses.replace(found, stream=dataclasses.replace(found.stream, transport="http"))
    for step in range(2):
        row = extractor.extract(dataclasses.replace(posted, captured_at=T0 + 10 * step))
        assert math.isnan(value(row, "frame_diff"))
        assert math.isnan(value(row, "jpeg_bpp"))


def test_images_of_video_are_measured_as_they_are() -> None:
    extractor = FeatureExtractor(5.0)
    encoded = candidate(0.9, data=encode(scene(), ".png"))
    pixels = np.ascontiguousarray(scene()).tobytes()
    stream = dataclasses.replace(encoded.stream, name="video", transport="webrtc")
    video = dataclasses.replace(encoded, data=pixels, source=PIXELS, stream=stream)
    one, other = extractor.extract(encoded), extractor.extract(video)
    assert one is not None
    assert other is not None
    assert other.source == "webrtc"
    assert np.array_equal(one.numbers, other.numbers, equal_nan=True)
    later = dataclasses.replace(video, captured_at=video.captured_at + 7)
    assert value(extractor.extract(later), "frame_diff") == 0


def test_frames_are_measured_upright() -> None:
    turned: SampleCandidate = candidate(0.9, data=with_exif(encode(scene()), 6), width=96, height=160)
    assert value(FeatureExtractor(5.0).extract(turned), "aspect") == pytest.approx(96 / 160)


def test_reported_frames_are_no_rows_and_damaged_ones_are_said() -> None:
    extractor = FeatureExtractor(5.0)
    assert extractor.extract(candidate(0.9, reported=True)) is None
    with pytest.raises(ImageError):
        extractor.extract(candidate(0.9, data=encode(scene())[:200]))
    assert np.isfinite(value(extractor.extract(candidate(0.9, at=T0 + 10)), "brightness"))
