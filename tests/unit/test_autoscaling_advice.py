"""The advice is the cheapest of what keeps the promise, and schedules and spares do what they say."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from streamer.cli.main import main
from streamer.simulation.autoscaling.advice import find, growth
from streamer.simulation.autoscaling.loop import simulate
from streamer.simulation.autoscaling.measures import REFUSED_PERCENT, measure
from streamer.simulation.autoscaling.scenario import Scenario, Scheduled
from streamer.simulation.errors import BadScenario

#: Streams that accept no lower rate, on small replicas that start slowly.
RIGID = Scenario(capacity=7, fps=(5.0,), cold_start_s=180)


def no_report(_text: str, _share: float) -> None:
    pass


def test_the_advice_is_the_cheapest_that_refuses_next_to_nothing() -> None:
    (advice,) = find([RIGID], (80.0, 60.0), (0, 1), (0,), no_report)
    tried = [
        measure(simulate(replace(RIGID, target=target, spares=spares)))
        for target in (80.0, 60.0)
        for spares in (0, 1)
    ]
    kept = [each.replica_hours for each in tried if each.refused_percent < REFUSED_PERCENT]
    assert advice.found
    assert advice.measures.replica_hours == min(kept)


def test_where_nothing_helps_the_advice_says_so() -> None:
    (advice,) = find([replace(RIGID, day="flash", cold_start_s=600)], (80.0,), (0,), (0,), no_report)
    assert not advice.found
    assert advice.cells()[4] == "-"
    assert advice.growth > 2


def test_a_replica_in_place_of_a_spare_starts_sooner_and_the_spare_costs_as_much() -> None:
    flash = replace(RIGID, day="flash", cold_start_s=600)
    without, spared = measure(simulate(flash)), measure(simulate(replace(flash, spares=6)))
    assert spared.refused_percent < without.refused_percent / 2
    assert spared.replica_hours > without.replica_hours + 5 * 24


def test_a_schedule_starts_replicas_before_the_load_comes() -> None:
    ramp = replace(RIGID, day="ramp", cold_start_s=600)
    scheduled = replace(ramp, schedule=(Scheduled.parse("5.5-8:16"),))
    assert measure(simulate(ramp)).refused_percent > 1
    outcome = simulate(scheduled)
    assert measure(outcome).refused_percent < 0.1
    hours = outcome.trace.times / 3600
    assert outcome.trace.wanted[(hours > 6) & (hours < 8)].min() >= 16
    assert outcome.trace.wanted[hours < 5.4].max() < 16


@pytest.mark.parametrize(
    ("day", "cold_start_s", "least", "most"), [("constant", 600, 1, 1), ("ramp", 600, 4, 10)]
)
def test_growth(day: str, cold_start_s: float, least: float, most: float) -> None:
    assert least <= growth(day, cold_start_s) <= most


@pytest.mark.parametrize("text", ["", "5", "5-4:3", "5-25:3", "5-6:0", "a-b:c"])
def test_a_schedule_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadScenario, match="expected BEGIN-END:REPLICAS"):
        Scheduled.parse(text)


def test_the_command_prints_the_advice(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "simulate",
        "autoscaling",
        "--find",
        "--fps",
        "5",
        "--capacity",
        "7",
        "--target",
        "60",
        "--spares",
        "0",
        "--json",
    ]
    assert main(words) == 0
    (found,) = json.loads(capsys.readouterr().out)["advice"]
    assert (found["found"], found["scenario"]["target"]) == (True, 60.0)
    assert main([*words[:-1], "--quiet"]) == 0
    assert "60 %" in capsys.readouterr().out
