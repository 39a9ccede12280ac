"""A simulated release accounts for every stream, and its autoscaler follows the demand."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from streamer.cli.main import main
from streamer.simulation.autoscaling.behavior import CHART, Behavior, Policy, Rules
from streamer.simulation.autoscaling.days import DAYS, day_shape
from streamer.simulation.autoscaling.loop import Outcome, simulate
from streamer.simulation.autoscaling.measures import direction_changes, measure
from streamer.simulation.autoscaling.population import draw
from streamer.simulation.autoscaling.scenario import Method, Remove, Scenario
from streamer.simulation.errors import BadScenario
from tests.helpers.documented import blocks
from tests.helpers.service import ROOT

COMMAND = ["simulate", "autoscaling", "--quiet"]
#: A small release: some 1,500 streams a day.
SMALL = Scenario(capacity=7, cold_start_s=60)


@pytest.fixture(scope="module")
def troubled() -> Outcome:
    """A day with everything that can go wrong."""
    return simulate(
        replace(SMALL, day="ramp", fps=(5, 10, 25), cold_start_s=600, failures=6, outages=4, method="keda")
    )


def test_every_stream_is_served_waiting_or_gone(troubled: Outcome) -> None:
    counts, trace = troubled.counts, troubled.trace
    assert counts.begun > 500
    between = trace.streams - trace.served - trace.waiting
    assert (between >= 0).all()
    assert between.max() < trace.streams.max() / 2
    assert counts.begun - counts.ended - counts.given_up == trace.streams[-1]
    assert 0 < counts.refused <= counts.refusals
    assert counts.refused <= counts.openings
    assert trace.waiting.max() > 0
    assert trace.limited.max() > 0


def test_what_waits_is_served_in_the_end() -> None:
    outcome = simulate(replace(SMALL, day="ramp", cold_start_s=600, permanent=1))
    assert outcome.trace.waiting[-1] == 0
    assert outcome.counts.begun - outcome.counts.ended == outcome.trace.streams[-1]


def test_a_seed_repeats_a_day_and_another_one_does_not() -> None:
    first, second = simulate(SMALL), simulate(SMALL)
    assert first.counts == second.counts
    assert (first.trace.pods == second.trace.pods).all()
    assert simulate(replace(SMALL, seed=1)).counts != first.counts


@pytest.mark.parametrize("day", DAYS)
def test_the_number_of_streams_follows_the_day(day: str) -> None:
    scenario = Scenario(day=day, capacity=680)
    expected = day_shape(day) * scenario.peak_streams
    drawn = draw(scenario, np.random.default_rng(1)).open_at(np.arange(30.0, 86_400, 60))
    # Streams end by themselves and are not ended, so a steep fall is followed slowly.
    assert np.abs(drawn - expected).mean() < 0.05 * scenario.peak_streams


def test_a_day_of_ones_own_is_read(tmp_path: Path) -> None:
    path = tmp_path / "day.csv"
    path.write_text("hour,streams\n0,100\n12,400\n")
    shape = day_shape(str(path))
    assert (shape[0], shape[720], shape[360]) == (0.25, 1, 0.625)
    for text in ("hour,streams\n0,1\n", "0,1\n25,1\n", "0,1\n1,x\n", "0,0\n1,0\n", "0,-1\n1,1\n", "0\n1\n"):
        path.write_text(text)
        with pytest.raises(BadScenario, match="--day"):
            day_shape(str(path))
    with pytest.raises(BadScenario, match=r"weekday.*found 'monday'"):
        day_shape("monday")


def test_turns_of_a_series_are_counted_beyond_a_threshold() -> None:
    assert direction_changes(np.array([1, 2, 3, 3, 2, 1, 2]), 1) == 2
    assert direction_changes(np.array([1.0, 2.0, 1.5, 2.5, 1.0]), 1) == 1
    assert direction_changes(np.array([5, 5, 5]), 1) == 0


def test_wrong_values_are_named() -> None:
    for wrong, said in (
        ({"target": 0}, "--target: expected 1 to 1000; found 0"),
        ({"cold_start_s": -1}, "--cold-start: expected 0 to 3600; found -1"),
        ({"fps": (0.0,)}, "--fps"),
        ({"min_replicas": 5, "max_replicas": 4}, "--min-replicas: expected at most 4"),
    ):
        with pytest.raises(BadScenario, match=said):
            Scenario(**wrong)


def test_the_command_simulates_all_combinations(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--capacity", "7,8", "--method", "hpa,keda", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    found = [(run["scenario"]["capacity"], run["scenario"]["method"]) for run in runs]
    assert found == [(7, "hpa"), (7, "keda"), (8, "hpa"), (8, "keda")]
    assert all(run["replica_hours"] > 24 for run in runs)
    assert main([*COMMAND, "--capacity", "7", "--up", "4/60", "--down-window", "0"]) == 0
    assert "weekday" in capsys.readouterr().out


def test_behaviour_and_target_are_those_of_the_chart() -> None:
    import yaml  # noqa: PLC0415 - only here

    values = yaml.safe_load((ROOT / "charts/real-time-vision-api/values.yaml").read_text())
    assert values["autoscaling"]["targets"]["loadPercent"] == Scenario().target
    given = values["autoscaling"]["behavior"]
    for direction, rules in (("scaleUp", CHART.up), ("scaleDown", CHART.down)):
        assert given[direction]["stabilizationWindowSeconds"] == rules.window_s
        assert given[direction].get("selectPolicy", "Max") == rules.select
        assert [
            (policy["type"], policy["value"], policy["periodSeconds"])
            for policy in given[direction]["policies"]
        ] == [(policy.kind, policy.value, policy.period_s) for policy in rules.policies]


@pytest.mark.parametrize(
    ("day", "capacity", "cold_start_s", "method"),
    [
        ("weekday", 7, 10, "hpa"),
        ("weekday", 7, 600, "keda"),
        ("weekday", 32, 10, "keda"),
        ("weekday", 32, 600, "hpa"),
        ("weekend", 7, 600, "hpa"),
    ],
)
def test_ordinary_days_keep_the_promises(
    day: str, capacity: float, cold_start_s: float, method: Method
) -> None:
    scenario = Scenario(day=day, capacity=capacity, cold_start_s=cold_start_s, method=method)
    assert measure(simulate(scenario)).keeps


def test_streams_that_cannot_give_way_are_served_on_an_ordinary_day() -> None:
    assert measure(simulate(replace(SMALL, fps=(5,)))).keeps


def test_a_target_without_headroom_refuses() -> None:
    """A negative control: the promises can be broken."""
    assert measure(simulate(replace(SMALL, fps=(5,), target=100))).refused_percent > 1


def test_a_crowd_needs_headroom_when_replicas_start_slowly() -> None:
    crowd = replace(SMALL, day="flash", fps=(5,), cold_start_s=600)
    assert measure(simulate(crowd)).refused_percent > 1
    assert measure(simulate(replace(crowd, target=20))).refused_percent < 0.1


def test_a_trigger_of_the_type_value_runs_away() -> None:
    """A negative control: the type of KEDA's trigger that the chart must not use, when no stream moves."""
    found = measure(simulate(replace(SMALL, method="keda-value", rebalance=0, max_replicas=50)))
    assert found.most_replicas >= 50
    assert found.over_target_optimum > 2
    assert not found.keeps


def test_two_pods_a_minute_are_too_slow_for_a_large_release() -> None:
    large = replace(SMALL, day="flash", peak=280, fps=(5,), cold_start_s=10)
    slow = replace(large, behavior=Behavior(Rules(30, (Policy("Pods", 2, 60),)), CHART.down))
    assert measure(simulate(slow)).refused_percent > 1
    assert measure(simulate(large)).refused_percent < 0.2


def test_metrics_that_are_interrupted_remove_no_replicas() -> None:
    """Half of the replicas, or all of them, cannot be seen for ten minutes at a time."""
    methods: tuple[Method, ...] = ("hpa", "keda")
    for method in methods:
        outcome = simulate(replace(SMALL, day="constant", capacity=14, method=method, outages=20))
        assert outcome.trace.wanted.min() >= 10
        assert measure(outcome).keeps


def test_a_node_that_dies_loses_no_stream() -> None:
    outcome = simulate(replace(SMALL, day="constant", permanent=1, failures=12))
    assert outcome.counts.openings >= 12 * 5
    assert outcome.trace.served[-1] == outcome.trace.streams[-1]
    assert outcome.counts.refused == 0


def test_the_emptiest_replica_goes_first_if_asked() -> None:
    removes: tuple[Remove, ...] = ("newest", "emptiest")
    moved = [simulate(replace(SMALL, remove=each, rebalance=0)).counts.moved for each in removes]
    assert moved[1] < moved[0]


def test_every_command_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "operations" / "autoscaling-simulation.md"
    commands = [command for block in blocks(page, "sh") for command in block.commands()]
    assert len(commands) == 4
    for command in commands:
        program, *words = shlex.split(command)
        assert program == "streamer"
        assert main([*words, "--quiet"]) == 0
    drawn = ElementTree.fromstring((tmp_path / "days.svg").read_text())  # noqa: S314 - our own file
    assert drawn.tag.endswith("svg")


def test_a_plot_needs_one_run_and_a_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["--capacity", "7,8", "--plot", "a.svg"], "--plot: expected options with one run; found 2 runs"),
        (["--plot", "a.png"], "--plot: expected a name that ends in .svg; found 'a.png'"),
        (["--plot", str(tmp_path / "none" / "a.svg")], "No such file"),
    ):
        assert main([*COMMAND, *words]) == 2
        assert said in capsys.readouterr().err
