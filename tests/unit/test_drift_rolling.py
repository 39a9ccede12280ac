"""Tests the rolling reference: which days it adds, skips and gives up; no slow drift becomes normal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from streamer.drift.blocks import Blocks
from streamer.drift.day import DAY_S, HOUR_S
from streamer.drift.episode import Episode, Onset, PastEpisode
from streamer.drift.history import History
from streamer.drift.learned_reference import LearnedReference, load, publish
from streamer.drift.monitor import DriftConfig
from streamer.drift.reference import GroupReference, Reference, learn
from streamer.drift.rolling import (
    DELAY_S,
    MAX_AGE_S,
    Period,
    days_between,
    drift_periods,
    held_days,
    judge_day,
    missing_days,
    next_midnight,
    total_hours,
)
from streamer.drift.rolling_state import dump, parse
from streamer.drift.rows import NUMERIC, Row, Table
from streamer.sampling.rolling_reference import RollingReference
from tests.helpers.drift_rows import START, World, rows

INTERVAL_S = 30.0
PER_DAY = int(DAY_S / INTERVAL_S)
#: The first local midnight of simulated time, and the rows' deviation, small beside most floors.
MIDNIGHT = next_midnight(START)
SCALE = 0.05
NOISE = NUMERIC.index("noise")
CONFIG = DriftConfig(interval_s=INTERVAL_S, rolling_days=4)


def days(count: int) -> list[Period]:
    return days_between(MIDNIGHT, MIDNIGHT + count * DAY_S)


def values_of(count: int, seed: int = 1) -> npt.NDArray[np.float32]:
    """Return the numbers of whole days, (rows, columns)."""
    return World(seed).values(count * PER_DAY) * SCALE


def made(values: npt.NDArray[np.float32], begin: float = MIDNIGHT, **given: str) -> list[Row]:
    return list(rows(values, begin, interval_s=INTERVAL_S, **given))


def learned(values: npt.NDArray[np.float32]) -> GroupReference:
    return learn(made(values), CONFIG.window_s, CONFIG.alpha)[0]


# -- which days are held ---------------------------------------------------------------------------------


def test_the_oldest_days_leave_and_the_last_of_a_weekday_stays() -> None:
    four_weeks = days(28)
    now = four_weeks[-1].end
    assert held_days(four_weeks, 7, now) == four_weeks[-7:]
    assert held_days(four_weeks, 14, now) == four_weeks[-14:]
    # Without a Sunday in the last weeks, that of the first week stays.
    sunday = next(day for day in four_weeks if day.weekday == 6)
    others = [day for day in four_weeks if day.weekday != 6]
    kept = held_days([sunday, *others], 7, now)
    assert kept == [sunday, *others[-6:]]
    assert missing_days(kept) == []
    assert missing_days(others) == ["Sunday"]
    # But not for ever, and a reference of few days cannot have all weekdays.
    assert sunday not in held_days([sunday, *others], 7, sunday.end + MAX_AGE_S + 1)
    assert held_days(four_weeks[:7], 3, now) == four_weeks[4:7]


def test_days_are_cut_at_local_midnights() -> None:
    parts = days_between(MIDNIGHT - 6 * HOUR_S, MIDNIGHT + 30 * HOUR_S)
    assert [part.hours for part in parts] == [6, 24, 6]
    assert total_hours(parts) == 36
    assert days_between(MIDNIGHT, MIDNIGHT) == []


def test_drift_counts_from_when_the_change_may_have_begun() -> None:
    episode = Episode()
    episode.past.append(PastEpisode(10 * DAY_S, 11 * DAY_S, {}, True, Onset("sudden", 9.9 * DAY_S)))
    episode.past.append(PastEpisode(20 * DAY_S, 21 * DAY_S, {}, True, Onset("gradual", 19.9 * DAY_S)))
    episode.past.append(PastEpisode(30 * DAY_S, 31 * DAY_S, {}, False))
    first, second = drift_periods(episode, 50 * DAY_S)
    assert (first.begin, first.end) == (9.9 * DAY_S - HOUR_S, 11 * DAY_S)
    assert (second.begin, second.end) == (18.9 * DAY_S, 21 * DAY_S)
    episode.since = 40 * DAY_S
    assert drift_periods(episode, 50 * DAY_S)[-1] == Period(39 * DAY_S, 50 * DAY_S)
    episode.recurring = True
    assert len(drift_periods(episode, 50 * DAY_S)) == 2


# -- which days are accepted -----------------------------------------------------------------------------


def test_a_day_with_drift_with_gaps_or_of_another_model_is_skipped_and_an_ordinary_one_is_not() -> None:
    values = values_of(3)
    reference = learned(values[: 2 * PER_DAY])
    day = days(3)[2]
    table = Table.of(made(values[2 * PER_DAY :], day.begin))

    def skipped(found: Table, of_model: float = 1.0, drift: tuple[Period, ...] = ()) -> str:
        return judge_day(day, found, of_model, reference, reference, drift).reason

    assert skipped(table) == ""
    assert skipped(table, drift=(Period(day.begin - DAY_S, day.begin),)) == ""
    assert skipped(table, drift=(Period(day.end - 1, day.end + HOUR_S),)) == "in drift"
    gap = abs(table.at - day.begin - 12 * HOUR_S) < 2 * HOUR_S
    assert skipped(table.take(~gap)) == "rows are missing in 4 h that the reference knows"
    short_gap = abs(table.at - day.begin - 12 * HOUR_S) < 0.25 * HOUR_S
    assert skipped(table.take(~short_gap)) == ""
    assert skipped(Table.of([])).startswith("rows are missing in 24 h")
    assert skipped(table, of_model=0.5) == "50 % of the rows are of another model"


def test_a_slow_drift_is_not_learned_away() -> None:
    """The reference stops at the first one's tolerance, and what goes on from there is found."""
    count, per_day = 22, 0.08
    values = values_of(2 + count)
    ramp = np.repeat(np.arange(count) + 1.0, PER_DAY) * per_day
    values[2 * PER_DAY :, NOISE] += ramp
    first = learned(values[: 2 * PER_DAY])
    reasons, far = [], False
    for place, day in enumerate(days(2 + count)[2:], 2):
        found = made(values[place * PER_DAY : (place + 1) * PER_DAY], day.begin)
        verdict = judge_day(day, Table.of(found), 1.0, first, first, (), far=far)
        far = verdict.far
        reasons.append(verdict.reason)
    accepted = [place for place, reason in enumerate(reasons) if not reason]
    assert accepted == list(range(len(accepted))), "once too far, nothing is added, on weekends neither"
    assert 1 <= len(accepted) < count - 2
    assert reasons[-1].startswith("noise is ")
    assert "away from the first reference" in reasons[-1]
    # The last reference is of four days, and the drift went on after them.
    held = slice((len(accepted) - 2) * PER_DAY, (len(accepted) + 2) * PER_DAY)
    reference, _ = learn(made(values[held], days(len(accepted) + 2)[-4].begin), CONFIG.window_s, CONFIG.alpha)
    assert reference.limits is not None
    levels = reference.limits.expectation.means[0, :, NOISE]
    assert np.nanmax(levels) < per_day * len(accepted)
    last = Table.of(made(values[-PER_DAY:], days(2 + count)[-1].begin))
    blocks = Blocks.of_table(last, reference.limits.signals, reference.limits.block_s)
    assert reference.limits.judge(blocks, steps=False)["noise"].ratio > 1


@pytest.mark.parametrize(("column", "by"), [("conf_mean", -0.5), ("brightness", 8.0), ("n_boxes", 4.0)])
def test_columns_of_all_kinds_are_compared_with_the_first_reference(column: str, by: float) -> None:
    values = values_of(3)
    # Each row has boxes, so means over objects are judged.
    values[:, NUMERIC.index("n_boxes")] += 3
    first = learned(values[: 2 * PER_DAY])
    day = days(3)[2]
    assert (
        judge_day(day, Table.of(made(values[2 * PER_DAY :], day.begin)), 1.0, first, first, ()).reason == ""
    )
    values[:, NUMERIC.index(column)] += by
    verdict = judge_day(day, Table.of(made(values[2 * PER_DAY :], day.begin)), 1.0, first, first, ())
    assert verdict.reason.startswith(f"{column} is ")
    assert verdict.far


# -- files and restarts ----------------------------------------------------------------------------------


class Camera:
    """Holds a history of one camera, and a first reference of its first two days."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "r.json"
        self.folder = folder / ".drift"
        self.history = History(self.folder, 1 << 30)
        assert self.history.open() == ""
        self.now = MIDNIGHT + 2 * DAY_S
        self.world = World(1)
        self.live(2, MIDNIGHT)
        self.make_reference()
        self.rolling = self.restarted()

    def live(self, count: float, begin: float, **given: str) -> None:
        for row in made(self.world.values(int(count * PER_DAY)) * SCALE, begin, **given):
            self.history.append(row)

    def make_reference(self, hours: float = 48) -> None:
        found = list(self.history.read("gate", self.now - hours * HOUR_S))
        learned = LearnedReference({"gate": learn(found, CONFIG.window_s, CONFIG.alpha)})
        self.reference = publish(
            self.path, learned, window_s=CONFIG.window_s, alpha=CONFIG.alpha, interval_s=INTERVAL_S
        )

    def restarted(self) -> RollingReference:
        return RollingReference(self.path, self.folder, self.history, CONFIG)

    def extend(self, drift: tuple[Period, ...] = ()) -> bool:
        extended = self.rolling.extend(self.reference, {"gate": drift}, self.now)
        if extended is not None:
            self.rolling.publish(extended)
            self.reference = self.load()
            assert self.reference.sha256 == extended.reference.sha256
        return extended is not None

    def load(self) -> Reference:
        found = load(self.path, window_s=CONFIG.window_s, alpha=CONFIG.alpha)
        assert found is not None
        return found

    def day(self, **given: str) -> Period:
        """Let a day pass; return the day before it, which may be judged now."""
        self.live(1, self.now, **given)
        self.now += DAY_S
        return Period(self.now - 2 * DAY_S, self.now - DAY_S)


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[Camera]:
    found = Camera(tmp_path)
    yield found
    found.history.close()


def test_days_are_added_after_a_delay_old_ones_leave_and_a_restart_changes_nothing(camera: Camera) -> None:
    assert not camera.extend()
    first = (camera.path.with_name("r.json.first")).read_bytes()
    begun = camera.rolling.describe()["gate"]
    assert (begun["days"], begun["most_days"], begun["skipped"]) == (2.0, 4, [])
    # The next whole day begins at the next midnight, and is judged a day after its end.
    camera.day()
    camera.day()
    assert not camera.extend()
    added = camera.day()
    assert added.begin == MIDNIGHT + 3 * DAY_S
    assert camera.extend()
    assert camera.rolling.describe()["gate"]["days"] == 3
    camera.rolling = camera.restarted()
    assert not camera.extend()
    assert camera.rolling.describe()["gate"]["days"] == 3
    bad = camera.day()
    assert not camera.extend((bad,))
    found = camera.rolling.describe()["gate"]
    assert found["skipped"] == [{"date": bad.date, "reason": "in drift"}]
    for _ in range(2):
        camera.day(model="v1:ab")
        assert camera.extend()
    found = camera.rolling.describe()["gate"]
    # Of five days the oldest has left.
    assert (found["days"], found["accepted"], found["waiting"]) == (4.0, 0, None)
    assert camera.reference.groups["gate"].table.at[0] >= MIDNIGHT + DAY_S - 60
    limits = camera.reference.groups["gate"].limits
    assert limits is not None
    assert camera.path.with_name("r.json.first").read_bytes() == first
    assert not camera.path.with_name("r.json.1").exists(), (
        "numbered copies are those that people have replaced"
    )


def test_a_reference_that_a_person_makes_is_the_first_one_again(camera: Camera) -> None:
    camera.extend()
    first = camera.path.with_name("r.json.first").read_bytes()
    camera.now += 3 * DAY_S
    camera.live(1, camera.now - DAY_S)
    camera.make_reference(24)
    assert not camera.extend()
    found = camera.rolling.describe()["gate"]
    assert (found["days"], found["skipped"]) == (1.0, [])
    assert camera.path.with_name("r.json.first").read_bytes() != first
    stored = json.loads(camera.path.with_name("r.json.first").read_bytes())["groups"]["gate"]["rows"]
    assert len(stored) == camera.reference.groups["gate"].rows


def test_days_whose_rows_are_gone_make_no_reference_smaller(camera: Camera) -> None:
    for _ in range(3):
        camera.day()
    camera.extend()
    for path in sorted((camera.folder / "gate").glob("*.rows"))[:-1]:
        path.unlink()
    camera.now += DAY_S
    camera.rolling.extend(camera.reference, {}, camera.now + 5 * DAY_S)
    found = camera.rolling.describe()["gate"]
    assert found["days"] >= 2
    assert all(day["reason"].startswith("rows are missing") for day in found["skipped"])


def test_a_damaged_state_begins_anew(camera: Camera) -> None:
    camera.extend()
    state = camera.folder / ".rolling.json"
    assert dump(parse(state.read_bytes())) == state.read_bytes()
    for text in (b"{", b"[]", b'{"schema": 9}', b'{"schema": 1, "groups": {"gate": {}}}'):
        state.write_bytes(text)
        with pytest.raises(ValueError, match=r"\w"):
            parse(text)
        camera.rolling = camera.restarted()
        assert not camera.extend()
        assert camera.rolling.describe()["gate"]["days"] == 2
    assert DELAY_S == DAY_S
