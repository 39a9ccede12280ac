"""Tests kinds of days that a reference lacks: what it knows of some time of day is no change, the rest is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from streamer.drift.blocks import Blocks
from streamer.drift.day import DAY_S, HOUR_S, hour_of, weekday_of
from streamer.drift.errors import ReferenceBroken
from streamer.drift.group_limits import Limits
from streamer.drift.limits_document import describe_limits, parse_limits
from streamer.drift.reference import GroupReference, learn
from streamer.drift.rolling import next_midnight
from streamer.drift.rows import NUMERIC, Table
from tests.helpers.drift_rows import START, World, rows

INTERVAL_S = 30.0
BRIGHTNESS = NUMERIC.index("brightness")
OPEN, CLOSED = 100.0, 20.0
#: Days after Monday, 0 h local time.
THURSDAY, SATURDAY, SUNDAY = 3, 5, 6


def monday() -> float:
    """Return a local midnight at which a Monday begins."""
    midnight = next_midnight(START)
    return midnight + (7 - int(weekday_of(np.array([midnight]))[0])) % 7 * DAY_S


def shop(
    day: float, hours: float, opens: float = 9, closes: float = 20, lit: float = OPEN
) -> tuple[float, npt.NDArray[np.float32]]:
    """Return the begin and the numbers of a shop's rows, whose lamps are on while it is open."""
    begin = monday() + day * DAY_S
    values = World(int(day) + 1).values(int(hours * HOUR_S / INTERVAL_S)) * 0.3
    hour = hour_of(begin + INTERVAL_S * np.arange(len(values), dtype=np.float64))
    values[:, BRIGHTNESS] += np.where((hour >= opens) & (hour < closes), lit, CLOSED)
    return begin, values


@pytest.fixture(scope="module")
def reference() -> GroupReference:
    """Return a reference of Monday to Wednesday."""
    begin, values = shop(0, 72)
    return learn(list(rows(values, begin, interval_s=INTERVAL_S)), 1800.0, 0.01)[0]


def limits_of(reference: GroupReference) -> Limits:
    assert reference.limits is not None
    return reference.limits


def worst(limits: Limits, begin: float, values: npt.NDArray[np.float32]) -> float:
    """Return the greatest ratio of brightness at the end of any half hour from the seventh hour on."""
    table = Table.of(list(rows(values, begin, interval_s=INTERVAL_S)))
    blocks = Blocks.of_table(table, limits.signals, limits.block_s)
    found = []
    for end in range(84, len(blocks) + 1, 6):
        part = Blocks(blocks.first, blocks.block_s, blocks.means[:end], blocks.counts[:end])
        evidence = limits.judge(part, steps=True).get("brightness")
        found.append(evidence.ratio if evidence is not None else 0.0)
    return max(found)


def test_other_hours_and_a_closed_day_are_a_change_on_a_known_kind_of_day_alone(
    reference: GroupReference,
) -> None:
    limits = limits_of(reference)
    assert limits.seen.gaps == ["Saturday", "Sunday"]
    assert worst(limits, *shop(THURSDAY, 24)) < 1
    assert worst(limits, *shop(THURSDAY, 24, opens=25)) > 1, "closed"
    assert worst(limits, *shop(SATURDAY, 24, opens=11, closes=17)) < 1
    assert worst(limits, *shop(SUNDAY, 24, opens=25)) < 1, "closed"


def test_what_the_reference_knows_of_no_time_is_a_change_on_any_day(reference: GroupReference) -> None:
    limits = limits_of(reference)
    for day in (THURSDAY, SATURDAY, SUNDAY):
        assert worst(limits, *shop(day, 24, lit=OPEN + 60)) > 1


def test_windows_of_such_a_day_have_the_reach_of_the_others(reference: GroupReference) -> None:
    noon = monday() + 12 * HOUR_S
    known, unknown = (
        limits_of(reference).numeric_window_limits(noon + day * DAY_S) for day in (THURSDAY, SUNDAY)
    )
    assert known["brightness"] < OPEN - CLOSED
    assert unknown["brightness"] > OPEN - CLOSED
    assert unknown["noise"] < 3 * known["noise"], "a column that has no times of day is judged as before"
    assert "top_class" in reference.at(noon + THURSDAY * DAY_S).thresholds
    assert reference.at(noon + SUNDAY * DAY_S).thresholds["top_class"] == float("inf")


def test_older_files_know_of_the_weekend_alone(reference: GroupReference) -> None:
    assert reference.windows is not None
    stored = describe_limits(reference.windows)
    assert parse_limits(stored, "gate").limits.seen.kinds == (True, False, False)
    old = stored | {"seen": {"slots": stored["seen"]["slots"], "working_days": False, "weekend": True}}
    assert parse_limits(old, "gate").limits.seen.kinds == (False, True, True)
    wrong = stored | {"seen": {"slots": stored["seen"]["slots"], "working_days": True, "saturday": True}}
    with pytest.raises(ReferenceBroken, match="sunday is None; needed is a bool"):
        parse_limits(wrong, "gate")
