"""The detectors that the monitor is compared with find a large change, and keep quiet before it."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from bench.drift_detectors import Adwin, Cusum, OnlineMmd, PageHinkley, StepDetector, step_means
from tests.helpers.drift_faults import COVERED
from tests.helpers.drift_gaussian import GaussianRecording, record_gaussian
from tests.helpers.drift_series import HOUR_S


@functools.cache
def camera() -> GaussianRecording:
    return record_gaussian("gaussian", 4, 0.4, 1.0)


def make(name: str) -> StepDetector:
    recording = camera()
    reference = recording.series.between(0, recording.now)
    if name == "cusum":
        return Cusum(reference, slack=1.0, level=40.0)
    if name == "page-hinkley":
        return PageHinkley(reference, tolerance=1.0, level=40.0)
    if name == "adwin":
        return Adwin(reference, confidence=1e-6)
    return OnlineMmd(reference, window=3, run_time=14_400, blocks=1, margin=1.5)


@pytest.mark.parametrize("name", ["cusum", "page-hinkley", "adwin", "mmd"])
def test_a_covered_lens_begins_one_episode_and_the_hours_before_none(name: str) -> None:
    recording, detector = camera(), make(name)
    begin = recording.now + 3 * HOUR_S
    quiet = [
        list(detector.feed(recording.series.between(recording.now + at, recording.now + at + 700)))
        for at in np.arange(0, 3 * HOUR_S, 700)
    ]
    assert not any(quiet)
    twin = detector.copy()
    found = list(twin.feed(recording.faulty(COVERED, begin, begin + 3 * HOUR_S, 1)))
    assert found, name
    assert 0 < found[0] - begin <= 2 * HOUR_S
    assert not detector.drifting


def test_steps_are_means_of_ten_minutes_and_missing_values_do_not_count() -> None:
    series = camera().series.between(camera().now, camera().now + 1800)
    ends, means = step_means(series)
    assert ends.tolist() == [camera().now + 600 * step for step in (1, 2, 3)]
    first = series.between(0, ends[0])
    assert means[0, 0] == pytest.approx(first.column("brightness").mean(), rel=1e-5)
    shares = means[0, -3:]
    assert shares.sum() == pytest.approx(1.0)
