"""Tests windows, episodes and groups; the timestamps of the rows are the clock."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterable

import numpy as np
import pytest

from streamer.drift.episode import Episode
from streamer.drift.monitor import MAX_GROUPS, Check, DriftConfig, Monitor
from streamer.drift.recent_rows import RecentRows
from streamer.drift.reference import GroupReference, Reference, learn
from streamer.drift.rows import NUMERIC, Row
from streamer.drift.severity import severity
from streamer.drift.status import describe, group_status, needs_attention
from streamer.sampling.feature_extractor import RowThrottle
from tests.helpers.drift_rows import START, World, rows

CONFIG = DriftConfig()
LATER = START + 7 * 86_400


@functools.cache
def reference() -> GroupReference:
    return learn(list(rows(World(1).values(12 * 720))), CONFIG.window_s, CONFIG.alpha)[0]


def make_monitor(**groups: object) -> Monitor:
    made = Monitor(CONFIG, lambda name: name == "unnamed")
    made.set_reference(Reference({"gate": reference()} | groups, "", "ab"))  # type: ignore[arg-type]
    return made


def feed(monitor: Monitor, found: Iterable[Row]) -> list[Check]:
    """Settle every check with the scores of the builtin engine; return the checks that began an episode."""
    return [check for row in found for check in monitor.add(row) if monitor.settle(check)]


def shifted(count: int, columns: tuple[str, ...], by: float, seed: int = 2) -> np.ndarray:
    values = World(seed).values(count)
    for name in columns:
        values[:, NUMERIC.index(name)] += by
    return values


def test_a_stream_gives_one_row_in_an_interval_whatever_its_clock_does() -> None:
    throttle = RowThrottle(5.0, random.Random(1))
    taken = [t for t in np.arange(0, 500, 0.2) if throttle.take("gate", 0, float(t))]
    assert 90 <= len(taken) <= 110
    assert all(4 <= b - a <= 6.21 for a, b in itertools.pairwise(taken))
    assert throttle.take("gate", 0, 100.0)
    assert not throttle.take("gate", 0, 101.0)


def test_streams_of_one_name_share_its_rows() -> None:
    throttle = RowThrottle(5.0, random.Random(1))
    taken = sum(throttle.take("unnamed", s, float(t)) for t in np.arange(0, 100, 0.5) for s in range(40))
    assert 60 <= taken <= 100  # four rows per interval


def test_no_passer_by_speaks_for_all_of_them() -> None:
    recent = RecentRows(1800, 5, mixed=True)
    for second in range(0, 1800, 5):
        for session in [1] if second % 20 else [1, 2, 3]:
            recent.add(Row(second + 1.0, "unnamed", session, "", np.zeros(27, np.float32), "", "", "", ()))
    window = recent.window(1800.0)
    counts = [sum(row.session == session for row in window.rows) for session in (1, 2, 3)]
    assert counts == [135, 90, 90]  # of 540 rows that were added: 360, 90 and 90
    assert window.coverage == 1


def test_gaps_and_short_streams_are_no_windows() -> None:
    monitor = make_monitor()
    found = list(rows(World(2).values(1440), LATER))
    feed(monitor, [row for row in found if row.at - LATER < 2400])
    assert group_status(monitor.groups["gate"]).name == "OK"
    for check in monitor.advance(LATER + 2400 + 1200):
        monitor.settle(check)
    assert group_status(monitor.groups["gate"]).name == "INSUFFICIENT_DATA"


def test_a_shift_is_found_once_and_ends_when_it_ends() -> None:
    monitor = make_monitor()
    begun = feed(monitor, rows(World(2).values(1440), LATER))
    assert begun == []
    values = shifted(1440, ("brightness", "noise", "conf_mean"), 2.0)
    begun = feed(monitor, rows(values, LATER + 7200))
    assert len(begun) == 1
    assert begun[0].window.end - (LATER + 7200) <= 2400
    group = monitor.groups["gate"]
    assert (group.episode.on, group.episodes) == (True, 1)
    found = describe(monitor, "", 0.0)
    assert found["status"] == "drift"
    assert {"noise", "conf_mean"} <= set(found["groups"]["gate"]["moved"])
    assert found["severity"] in ("minor", "moderate", "severe")
    feed(monitor, rows(World(3).values(1440), LATER + 14_400))
    assert not group.episode.on
    assert group.episodes == 1


def test_two_of_three_strong_windows_or_one_severe_begin_an_episode_three_clean_ones_end_it() -> None:
    def run(ratios: list[float], *, calibrated: bool = True) -> tuple[list[int], bool]:
        episode = Episode()
        begun = [
            i for i, r in enumerate(ratios) if episode.add_window(r, float(i + 1), calibrated=calibrated)
        ]
        return begun, episode.on

    assert run([1.2, 0.5, 0.5, 1.2, 0.4, 0.4]) == ([], False)
    assert run([1.2, 0.5, 1.2]) == ([2], True)
    assert run([1.1, 1.1, 0.5, 1.1, 1.1]) == ([], False)
    assert run([1.1, 1.2, 1.1]) == ([2], True)
    assert run([1.2, 1.2, 0.9]) == ([1], True)
    assert run([1.2, 1.2, 0.5, 0.5, 1.0, 0.5, 0.5]) == ([1], True)
    assert run([1.2, 1.2, 0.5, 0.5, 0.5, 1.2, 0.5]) == ([1], False)
    assert run([1.2, 1.2, 0.5, 0.5, 0.5, 1.2, 1.2]) == ([1, 6], True)
    assert run([3.1]) == ([0], True)
    assert run([5.0, 1.2, 0.5], calibrated=False) == ([], False)
    assert run([1.2, 1.2, 1.2], calibrated=False) == ([2], True)


def test_severity_follows_from_probability_and_from_the_effect_on_detections() -> None:
    assert [severity(ratio, 0.0) for ratio in (1.0, 2.0, 5.0)] == ["minor", "moderate", "severe"]
    assert [severity(1.0, effect) for effect in (0.4, 0.5, 1.0)] == ["minor", "moderate", "severe"]


def test_what_comes_and_goes_every_day_is_no_drift_from_its_third_day_on() -> None:
    episode = Episode()
    day, step = 86_400.0, 600.0
    begun = []
    for window in range(int(6 * day / step)):
        at = window * step
        dark = 18 <= at % day / 3600 < (23 if at > 5 * day else 20)
        columns = {"brightness": 2.0, "noise": 1.1} if dark else {"brightness": 0.2, "noise": 0.3}
        if episode.add_window(max(columns.values()), at, calibrated=True, columns=columns):
            begun.append((at // day, at % day / 3600))
        if at < 5 * day:
            assert not (episode.on and at > 2 * day)
    # On the last day it takes so much longer that it is drift after all.
    assert [day for day, _ in begun] == [0, 1, 5]
    assert begun[-1][1] > 21
    other = Episode()
    for window in range(int(4 * day / step)):
        at = window * step
        columns = {("noise", "contrast", "saturation")[int(at // day) % 3]: 2.0 if at % day < 7200 else 0.1}
        other.add_window(max(columns.values()), at, calibrated=True, columns=columns)
        assert not other.recurring


def test_near_a_threshold_and_once_an_hour_evidently_is_asked_and_its_scores_count() -> None:
    monitor = make_monitor()
    asked = [c for row in rows(World(2).values(1440), LATER) for c in monitor.add(row) if c.ask]
    assert 2 <= len(asked) <= 4
    values = shifted(720, ("brightness",), 4.0)
    checks = [c for row in rows(values, LATER + 7200) for c in monitor.add(row)]
    assert all(check.ask for check in checks if check.ratio >= 0.8)
    for check in checks:
        assert not monitor.settle(check, {"brightness": 0.01})
    assert monitor.groups["gate"].check is checks[-1]
    assert checks[-1].engine == "evidently"


def test_another_model_is_no_drift_of_its_predictions() -> None:
    monitor = make_monitor()
    values = shifted(1440, ("n_boxes", "conf_mean", "area_med"), 6.0)
    assert feed(monitor, rows(values, LATER, model="v1:other")) == []
    assert group_status(monitor.groups["gate"]).name == "STALE_REFERENCE"
    assert describe(monitor, "", 0.0)["status"] == "stale_reference"
    # Columns that describe the image are compared although the model differs.
    assert feed(monitor, rows(shifted(1440, ("noise",), 4.0), LATER + 7200, model="v1:other"))
    assert describe(monitor, "", 0.0)["status"] == "drift"


def test_no_reference_is_said_and_a_new_one_begins_anew() -> None:
    monitor = Monitor(CONFIG)
    assert describe(monitor, "", 0.0)["status"] == "no_reference"
    assert describe(monitor, "broken", 0.0)["status"] == "error"
    feed(monitor, rows(shifted(1440, ("noise",), 4.0), LATER))
    assert describe(monitor, "", 0.0)["status"] == "no_reference"
    monitor.set_reference(Reference({"*": reference()}, "", ""))
    assert describe(monitor, "", 0.0)["status"] == "insufficient_data"
    feed(monitor, rows(shifted(1440, ("noise",), 4.0), LATER + 7200))
    assert describe(monitor, "", 0.0)["status"] == "drift"
    monitor.set_reference(monitor.reference)
    assert describe(monitor, "", 0.0)["status"] == "insufficient_data"


def test_a_fleet_is_in_drift_when_two_are_or_one_severely() -> None:
    monitor = make_monitor(yard=reference())
    for name in ("gate", "yard"):
        feed(monitor, rows(World(2).values(10), LATER, stream=name))
    gate, yard = monitor.groups["gate"].episode, monitor.groups["yard"].episode
    gate.since, gate.worst = LATER, 1.4  # a minor one
    assert not needs_attention(monitor)
    assert describe(monitor, "", 0.0)["status"] == "drift"
    gate.effect = 1.2
    assert needs_attention(monitor)
    gate.effect, yard.since = 0.0, LATER
    assert needs_attention(monitor)


def test_groups_are_bounded_and_an_episode_gives_so_many_samples() -> None:
    monitor = make_monitor()
    for number in range(MAX_GROUPS + 5):
        monitor.add(next(rows(World(2).values(1), LATER, stream=f"s{number}")))
    assert len(monitor.groups) == MAX_GROUPS
    monitor = make_monitor()
    assert not monitor.wants_sample("gate")
    feed(monitor, rows(shifted(1440, ("noise",), 4.0), LATER))
    for _ in range(CONFIG.samples):
        assert monitor.wants_sample("gate")
        monitor.sample_taken("gate")
    assert not monitor.wants_sample("gate")


@pytest.mark.parametrize("jump_s", [-86_400.0, 30 * 86_400.0])
def test_a_clock_that_jumps_costs_a_few_windows_and_no_alarm(jump_s: float) -> None:
    monitor = make_monitor()
    feed(monitor, rows(World(2).values(720), LATER))
    assert feed(monitor, rows(World(3).values(1440), LATER + jump_s)) == []
    assert group_status(monitor.groups["gate"]).name == "OK"
