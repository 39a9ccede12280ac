"""A day without drift raises no alarm, and a shift of two standard deviations raises one within 40 minutes.

The rows come from simulated cameras (`World`) with five seeds, whose half-hours differ from each other. The
tests add rows to the monitor as the sampling process does.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from streamer.drift.monitor import DriftConfig, Monitor
from streamer.drift.reference import Reference, learn
from streamer.drift.rows import NUMERIC, Row
from tests.helpers.drift_rows import INTERVAL_S, START, World, rows

#: Half as many rows as by default. Half-hours differ as much, so this is the harder case, in half the time.
CONFIG = DriftConfig(interval_s=2 * INTERVAL_S)
DAY_S = 86_400.0
DAY = int(DAY_S / CONFIG.interval_s)


def camera(values: npt.NDArray[np.float32], begin: float) -> Iterator[Row]:
    return rows(values, begin, interval_s=CONFIG.interval_s)


@pytest.mark.parametrize("seed", range(5))
def test_a_quiet_day_and_then_a_shift(seed: int) -> None:
    world = World(seed)
    known = list(camera(world.values(2 * DAY)[::2], START))
    reference, _ = learn(known, CONFIG.window_s, CONFIG.alpha)
    monitor = Monitor(CONFIG)
    monitor.set_reference(Reference({"gate": reference}, "", ""))
    values = world.values(2 * (DAY + 720))[::2]
    moved = np.random.default_rng(seed).choice(len(NUMERIC), 3, replace=False)
    values[DAY:, moved] += 2.0
    begun = START + 2 * DAY_S
    entered = [
        check.window.end - begun - DAY_S
        for row in camera(values, begun)
        for check in monitor.add(row)
        if monitor.settle(check)
    ]
    assert len(entered) == 1
    assert 0 < entered[0] <= 40 * 60
    assert monitor.groups["gate"].episode.on
