"""Tests that the drift service extends a rolling reference, says so, and lets people replace it as before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamer.drift.day import DAY_S
from streamer.drift.monitor import MAX_GROUPS
from streamer.drift.rolling import DELAY_S, next_midnight
from streamer.sampling import drift_service, rolling_schedule
from streamer.sampling.metrics import OTHERS, GrowingReference
from tests.helpers.drift_rows import START, World, rows
from tests.unit.test_drift_api import DriftRun

INTERVAL_S = 30.0
PER_DAY = int(DAY_S / INTERVAL_S)
MIDNIGHT = next_midnight(START)


class Clock:
    """Stands in for the module `time` of the schedule."""

    def __init__(self, now: float) -> None:
        self.now = now

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


def shown(run: DriftRun, group: str) -> tuple[float, float]:
    """Return what the metrics say of a growing reference: its days, and the age of the newest."""
    metrics = run.service._metrics
    gauges = metrics._days, metrics._newest_age_s
    days, age_s = (gauge.labels(group)._value.get() for gauge in gauges)
    return float(days), float(age_s)


async def test_the_service_adds_a_day_and_keeps_what_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(MIDNIGHT + 2 * DAY_S)
    monkeypatch.setattr(rolling_schedule, "time", clock)
    monkeypatch.setattr(drift_service, "time", clock)
    run = DriftRun(tmp_path, drift_rolling_days=4, drift_sample_interval_s=INTERVAL_S)
    service, world = run.service, World(1)
    await service.open()
    found = list(rows(world.values(5 * PER_DAY) * 0.05, MIDNIGHT, interval_s=INTERVAL_S))
    base, later = found[: 2 * PER_DAY], found[2 * PER_DAY :]
    plain = [
        {"at": row.at, "group": "gate", "model": row.model, "brightness": float(row.numbers[0])}
        for row in base
    ]
    for row in found:
        service.history.append(row)
    try:
        assert "result" in await run.update({"rows": plain}, force=True)
        await service.rolling.extend()
        begun = run.status()["reference"]
        assert begun["groups"]["gate"]["rolling"]["days"] == 2.0
        for row in later[-200:]:
            service.monitor.add(row)
        group = service.monitor.groups["gate"]
        group.episodes = 3
        clock.now = MIDNIGHT + 4 * DAY_S + DELAY_S
        await service.rolling.extend()
        status = run.status()
        rolling = status["reference"]["groups"]["gate"]["rolling"]
        assert (rolling["days"], rolling["skipped"], rolling["waiting"]) == (3.0, [], None)
        assert status["reference"]["sha256"] != begun["sha256"]
        assert shown(run, "gate") == pytest.approx((3.0, DELAY_S), abs=60)
        # Nothing began anew, and the file is not taken for one that a person has replaced.
        assert len(group.recent.between(0, clock.now * 2)) > 0
        assert status["groups"]["gate"]["episodes"] == 3
        await service._read_reference()
        assert len(group.recent.between(0, clock.now * 2)) > 0
        # While a day is added, nobody replaces the reference, and the other way round.
        service.updating = True
        assert (await run.update({"rows": plain}))["error"]["code"] == "locked"
        await service.rolling.extend()
        service.updating = False
        assert "result" in await run.update({"rows": plain}, force=True)
        await service.rolling.extend()
        assert run.status()["reference"]["groups"]["gate"]["rolling"]["days"] == 2.0
        assert json.loads((tmp_path / "r.json.first").read_bytes())["groups"].keys() == {"gate"}
    finally:
        await run.close()


async def test_a_group_that_is_no_longer_watched_has_no_age_that_could_alarm(tmp_path: Path) -> None:
    run = DriftRun(tmp_path)
    metrics = run.service._metrics
    try:
        metrics.show_growing({"gate": GrowingReference(7, 9e5), "dock": GrowingReference(3, 100)})
        assert (shown(run, "gate"), shown(run, "dock")) == ((7, 9e5), (3, 100))
        metrics.show_growing({"dock": GrowingReference(4, 200)})
        assert (shown(run, "gate"), shown(run, "dock")) == ((0, 0), (4, 200))
        # All groups beyond the first ones share a label, which shows the oldest of their references.
        many = {f"camera-{number}": GrowingReference(5, number) for number in range(MAX_GROUPS)}
        metrics.show_growing(many)
        assert shown(run, OTHERS) == (5, MAX_GROUPS - 1)
    finally:
        await run.close()
