"""Lets a drift reference grow through simulated weeks, by the service's own rules, in a fraction of the time.

Checks are those of `drift_replay`. After each day, `streamer.drift.rolling` judges the day before it, and the
reference is learned again from the days that it then holds, as `streamer.sampling.rolling_reference` does
with rows of the history.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from streamer.drift.episode import Episode
from streamer.drift.group_limits import KEPT_BLOCKS
from streamer.drift.monitor import DriftConfig
from streamer.drift.reference import GroupReference, learn_table, thin_rows
from streamer.drift.rolling import (
    DELAY_S,
    Period,
    days_between,
    drift_periods,
    held_days,
    judge_day,
    next_midnight,
)
from streamer.drift.rows import Row, Table
from tests.helpers.drift_faults import KINDS, effect_of
from tests.helpers.drift_replay import BLOCK_S, checks_of, run_checks
from tests.helpers.drift_scene import Effect, Scene
from tests.helpers.drift_series import DAY_S, Floats, Series
from tests.helpers.drift_trial import STREAM
from tests.helpers.drift_worlds import draw

#: A row in so many is watched; a window of half an hour still has the rows that it needs.
THIN = 3
CONFIG = DriftConfig(interval_s=5.0 * THIN)
#: Rows of each day that the reference stores.
_STORED = 300
#: Returns what is wrong at these days since the first reference, (n,).
Change = Callable[[Floats], Effect]


@dataclass(slots=True)
class Weeks:
    """Holds what happened; times are days since the first reference was made."""

    #: Begins of episodes.
    episodes: list[float] = field(default_factory=list)
    #: Begins of the days that were added, and of those that were skipped, with the reason.
    added: list[float] = field(default_factory=list)
    skipped: dict[float, str] = field(default_factory=dict)
    #: Share of the checks during an episode.
    drifting: float = 0.0

    def added_after(self, day: float) -> list[float]:
        """Return the added days that had not ended at that time."""
        return [begin for begin in self.added if begin + 1 > day]


def watch(
    world: str,
    seed: int,
    days: int,
    *,
    change: Change | None = None,
    fault: tuple[str, float] | None = None,
    rolling_days: int = 14,
    first_days: int = 3,
) -> Weeks:
    """Watch a camera for so many days after its first reference.

    ``fault`` is one of `drift_faults.KINDS` and the day on which it begins; it lasts. Without
    ``rolling_days`` the first reference stays the only one.
    """
    timeline = draw(world, seed, days, first_days)
    series = _series(timeline.scene, timeline.now, seed, change, fault)
    return _grow(series, timeline.now, timeline.end, rolling_days)


def _series(
    scene: Scene, now: float, seed: int, change: Change | None, fault: tuple[str, float] | None
) -> Series:
    if change is not None:
        return scene.series(change((scene.at - now) / DAY_S), seed).every(THIN)
    if fault is None:
        return scene.series(seed=seed).every(THIN)
    kind, day = fault
    begin = now + day * DAY_S
    before, after = scene.between(float(scene.at[0]), begin), scene.between(begin, float(scene.at[-1]) + 1)
    effect = effect_of(kind, after, begin, np.random.default_rng((seed, KINDS.index(kind))))
    return before.series(seed=seed).every(THIN).joined(after.series(effect, seed + 1).every(THIN))


def _grow(series: Series, now: float, end: float, rolling_days: int) -> Weeks:
    first_begin = float(series.at[0])
    held = days_between(first_begin, now)
    rows_of: dict[Period, list[Row]] = {day: _rows(series, day) for day in held}
    first = reference = _learn([rows_of[day] for day in held])
    result, episode, far = Weeks(), Episode(), False
    begin, checked, on = now, 0, 0
    while begin < end:
        until = min(end, next_midnight(begin))
        limits = reference.limits
        assert limits is not None
        part = series.between(begin - KEPT_BLOCKS * BLOCK_S, until)
        for at, begun in run_checks(checks_of(limits, part, limits.signals), limits, episode, begin):
            checked, on = checked + 1, on + episode.on
            if begun:
                result.episodes.append((at - now) / DAY_S)
        begin = until
        judged = Period(until - DELAY_S - DAY_S, until - DELAY_S)
        if not rolling_days or until != next_midnight(until - 1) or judged.begin < next_midnight(now):
            continue
        rows = rows_of[judged] = _rows(series, judged)
        drift = drift_periods(episode, until)
        verdict = judge_day(judged, Table.of(rows), 1.0, reference, first, drift, far=far)
        far = verdict.far
        if verdict.reason:
            result.skipped[(judged.begin - now) / DAY_S] = verdict.reason
            continue
        result.added.append((judged.begin - now) / DAY_S)
        held = held_days([*held, judged], rolling_days, until)
        reference = _learn([rows_of[day] for day in held])
    result.drifting = on / max(1, checked)
    return result


def _rows(series: Series, day: Period) -> list[Row]:
    return list(series.between(day.begin, day.end).rows(STREAM))


def _learn(days: list[list[Row]]) -> GroupReference:
    table = Table.joined([Table.of(rows) for rows in days])
    kept = [row for rows in days for row in thin_rows(rows, _STORED)]
    return learn_table(days[0][0].model, table, kept, CONFIG.window_s, CONFIG.alpha)


def slow_dirt(days: float) -> Change:
    """Return dirt that becomes as thick as that of `drift_faults` in so many days instead of six hours."""

    def change(day: Floats) -> Effect:
        thickness = np.clip(day / days, 0, 1)
        return Effect(
            contrast=-0.5 * thickness,
            detail=-0.8 * thickness,
            exposure=0.1 * thickness,
            chroma=-0.2 * thickness,
        )

    return change
