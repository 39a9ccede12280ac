"""A growing drift reference learns ordinary days of a season, and neither a fault nor a slow change.

`docs/drift.md` has the figures of longer weeks of more cameras.
"""

from __future__ import annotations

import pytest

from tests.helpers.drift_faults import MOVED
from tests.helpers.drift_weeks import slow_dirt, watch

SEED = 77


def test_days_of_spring_are_learned_and_those_of_a_fault_are_not() -> None:
    begin = 4.3
    weeks = watch("spring", SEED, 8, fault=(MOVED, begin), rolling_days=7)
    # All whole days from the reference to the fault.
    assert weeks.added == pytest.approx([weeks.added[0] + place for place in range(len(weeks.added))])
    assert weeks.added[0] < 1
    assert begin - 1 <= weeks.added[-1] + 1 <= begin
    assert weeks.added_after(begin) == []
    assert set(weeks.skipped.values()) == {"in drift"}
    first = weeks.episodes[0]
    assert begin < first < begin + 1


def test_a_slow_change_is_learned_only_as_far_as_the_first_reference_allows() -> None:
    weeks = watch("spring", SEED, 10, change=slow_dirt(days=12), rolling_days=7)
    # It is learned for some days, as far as ordinary days may differ, and then never again.
    assert weeks.added[-1] + 1 < 8
    assert min(weeks.skipped) > weeks.added[-1]
    assert any("away from the first reference" in reason for reason in weeks.skipped.values())
