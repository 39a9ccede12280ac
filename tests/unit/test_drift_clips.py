"""Rows of real clips: without an edit no episode begins, and obvious edits begin one soon."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import shared
from tests.helpers.drift_clips import CLIPS, EDITS, UNEDITED, missing_file, record_clip
from tests.helpers.drift_series import HOUR_S
from tests.helpers.drift_trial import ServiceDetector, Summary, Trial, run

CLIP = "clip_belt"


def require(clip: str) -> None:
    """Skip the test if a file of the clip is absent."""
    missing = missing_file(clip)
    if missing is not None:
        shared(str(missing).partition("/shared/")[2])


def test_edits_change_what_they_say() -> None:
    recording = record_clip(CLIP, 1, 0.05, 0.05, frames=6, levels=1)
    means = {
        edit: {
            name: float(np.nanmean(recording.faulty(edit, 0, np.inf, 0).column(name)))
            for name in ("brightness", "saturation", "noise", "log_sharpness", "cx_med", "n_boxes")
        }
        for edit in (UNEDITED, "exposure", "lost focus", "infrared", "covered part")
    }
    plain = means[UNEDITED]
    assert plain["n_boxes"] > 1
    assert means["exposure"]["brightness"] > 1.2 * plain["brightness"]
    assert means["lost focus"]["log_sharpness"] < plain["log_sharpness"] - 2
    assert means["infrared"]["saturation"] == 0
    assert means["infrared"]["noise"] > 2 * plain["noise"]
    assert means["covered part"]["brightness"] < 0.9 * plain["brightness"]
    assert means["covered part"]["cx_med"] > plain["cx_med"] + 0.05


def test_a_clip_in_a_loop_is_no_drift_and_edits_of_it_are() -> None:
    recording = record_clip(CLIP, 2, 0.25, 1.0, frames=10, levels=3)
    now, series = recording.now, recording.series
    detector = ServiceDetector(series.between(0, now))
    begin = now + 3 * HOUR_S
    assert list(detector.feed(series.between(now, begin))) == []
    for kind in ("lost focus", "infrared"):
        found = next(detector.copy().feed(recording.faulty(kind, begin, begin + 2 * HOUR_S, 0)), None)
        assert found is not None, kind
        assert found - begin <= HOUR_S, kind


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("clip", CLIPS)
def test_clips_for_days(clip: str, full: bool) -> None:
    if not full:
        pytest.skip("days of each clip run with --full")
    require(clip)
    outcomes = [run(Trial(clip, 72, 4.0, seed, reference_days=3)) for seed in (1, 2)]
    summary = Summary(outcomes)
    assert summary.false <= 1
    for kind in EDITS:
        assert summary.found(kind) == (2, 2), kind
