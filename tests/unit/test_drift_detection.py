"""Simulated cameras: days without a fault begin no episode, and each kind of fault begins one.

The rows come from worlds that know nothing of the monitor (`drift_worlds`); with `--full`, more cameras run
for longer. `make bench BENCH=drift_worlds` makes the table of docs/drift.md.
"""

from __future__ import annotations

import pytest

from tests.helpers.drift_faults import COVERED, DIRT, FOCUS
from tests.helpers.drift_series import HOUR_S
from tests.helpers.drift_trial import Summary, Trial, run

SUDDEN = (COVERED, FOCUS)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("world", "hours"), [("slow", 24), ("day_night", 72), ("first_night", 10)])
def test_days_without_a_fault_and_then_faults(world: str, hours: float, full: bool) -> None:
    days, seeds = (10.0, range(2000, 2010)) if full else (3.0, range(2000, 2001))
    kinds = (*SUDDEN, DIRT) if full and hours == 72 else SUDDEN
    summary = Summary([run(Trial(world, hours, days, seed, kinds, hours / 24)) for seed in seeds])
    assert summary.false <= len(seeds) // 4
    for kind in kinds:
        found, of = summary.found(kind)
        assert found >= 0.9 * of, kind
    for kind in SUDDEN if world == "day_night" else ():
        assert summary.median_delay_h(kind) <= 1, kind
    if DIRT in kinds:
        assert summary.median_delay_h(DIRT) * HOUR_S <= 6 * HOUR_S
