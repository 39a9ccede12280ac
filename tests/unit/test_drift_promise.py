"""The monitor keeps its promise in worlds that it was not tuned on: few false episodes, faults found soon.

The short form watches one camera of each world for hours, and then covers its lens. The long form counts over
days of many cameras (``--full``). `make bench BENCH=drift_worlds` prints the table of the docs.
"""

from __future__ import annotations

import numpy as np
import pytest

from streamer.drift.monitor import DriftConfig
from tests.helpers.drift_faults import COVERED, record_world
from tests.helpers.drift_gaussian import GAUSSIANS, record_gaussian
from tests.helpers.drift_series import HOUR_S, Series
from tests.helpers.drift_trial import (
    Recording,
    ServiceDetector,
    Summary,
    Trial,
    hours_of_reference,
    run,
)
from tests.helpers.drift_worlds import WORLDS

#: A third of the rows by default, in a third of the time; what happens is as slow.
THIN = 3
CONFIG = DriftConfig(interval_s=5.0 * THIN)
SEED = 77
#: World whose hours after the reference are unlike any in it.
UNSEEN = "first_night"
#: Cameras of each world and days of each in the long form; seeds of the published table begin at 1000.
FULL_SEEDS, FULL_DAYS = range(2000, 2006), 8.0


def record(name: str) -> Recording:
    draw = record_gaussian if name in GAUSSIANS else record_world
    return draw(name, SEED, 2.0, 1.0)


@pytest.mark.parametrize("name", [*WORLDS, *GAUSSIANS])
def test_hours_without_an_episode_and_then_a_covered_lens(name: str) -> None:
    recording = record(name)
    now, series = recording.now, recording.series
    hours = hours_of_reference(name, 24)
    detector = ServiceDetector(series.between(now - hours * HOUR_S, now).every(THIN), CONFIG)
    begin = _busy_time(series, now + 6 * HOUR_S)
    assert list(detector.feed(series.between(now, begin).every(THIN))) == []
    faulty = recording.faulty(COVERED, begin, begin + 2 * HOUR_S, SEED).every(THIN)
    found = next(detector.feed(faulty), None)
    if name == UNSEEN:
        assert found is None  # the reference has seen no night, so the monitor does not judge it
    else:
        assert found is not None
        assert found - faulty.at[0] <= HOUR_S


def _busy_time(series: Series, earliest: float) -> float:
    """Return when something passes in the next two hours: a dark, empty shop shows few faults."""
    hours = np.arange(earliest, earliest + 24 * HOUR_S, HOUR_S)
    seen = [series.between(hour, hour + 2 * HOUR_S).column("n_boxes") for hour in hours]
    return next(
        float(hour) for hour, boxes in zip(hours, seen, strict=True) if len(boxes) and boxes.mean() > 0.2
    )


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("reference_h", [24.0, 72.0, 168.0])
@pytest.mark.parametrize("name", [*WORLDS, *GAUSSIANS])
def test_days_of_many_cameras(name: str, reference_h: float, full: bool) -> None:
    if not full:
        pytest.skip("days of many cameras run with --full")
    summary = Summary([run(Trial(name, reference_h, FULL_DAYS, seed)) for seed in FULL_SEEDS])
    # With the promised rate, more false episodes than this have a chance below 5 %.
    promised = (0.05 if reference_h < 72 else 0.02) * summary.days
    assert summary.false <= promised
