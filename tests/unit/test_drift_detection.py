"""A day without drift raises no alarm, and a shift of two standard deviations raises one within 40 minutes.

The rows come from simulated cameras (`World`) with five seeds, whose half-hours differ from each other. The
tests add rows to the monitor as the sampling process does.
"""

from __future__ import annotations

import numpy as np
import pytest

from streamer.drift.monitor import DriftConfig, Monitor
from streamer.drift.reference import Reference, learn
from streamer.drift.rows import NUMERIC
from tests.helpers.drift_rows import START, World, rows

CONFIG = DriftConfig()
DAY_S = 86_400.0
DAY = int(DAY_S / CONFIG.interval_s)


@pytest.mark.parametrize("seed", range(5))
def test_a_quiet_day_and_then_a_shift(seed: int) -> None:
    world = World(seed)
    reference, _ = learn(list(rows(world.values(DAY), START)), CONFIG.window_s, CONFIG.alpha)
    monitor = Monitor(CONFIG)
    monitor.set_reference(Reference({"gate": reference}, "", ""))
    values = world.values(DAY + 2 * 720)
    moved = np.random.default_rng(seed).choice(len(NUMERIC), 3, replace=False)
    values[DAY:, moved] += 2.0
    begun = START + 2 * DAY_S
    entered = [
        check.window.end - begun - DAY_S
        for row in rows(values, begun)
        for check in monitor.add(row)
        if monitor.settle(check)
    ]
    assert len(entered) == 1
    assert 0 < entered[0] <= 40 * 60
    assert monitor.groups["gate"].episode.on
