"""A simulated release accounts for every stream, and its autoscaler follows the demand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamer.cli.main import main
from streamer.simulation.autoscaling.behavior import CHART
from streamer.simulation.autoscaling.days import DAYS, day_shape
from streamer.simulation.autoscaling.loop import Outcome, simulate
from streamer.simulation.autoscaling.measures import direction_changes, measure
from streamer.simulation.autoscaling.population import draw
from streamer.simulation.autoscaling.scenario import Scenario
from streamer.simulation.errors import BadScenario

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
    served = trace.streams - trace.waiting
    assert (trace.waiting >= 0).all()
    assert (served >= 0).all()
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
    assert main([*COMMAND, "--capacity", "7,14", "--method", "hpa,keda", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [(run["scenario"]["capacity"], run["scenario"]["method"]) for run in runs] == [
        (7, "hpa"),
        (7, "keda"),
        (14, "hpa"),
        (14, "keda"),
    ]
    assert all(run["replica_hours"] > 24 for run in runs)
    assert main([*COMMAND, "--capacity", "7", "--up", "4/60", "--down-window", "0"]) == 0
    assert "weekday" in capsys.readouterr().out


def test_the_behaviour_is_that_of_the_chart() -> None:
    import yaml  # noqa: PLC0415 - only here

    values = yaml.safe_load(
        (Path(__file__).parents[2] / "charts/real-time-vision-api/values.yaml").read_text()
    )
    given = values["autoscaling"]["behavior"]
    for direction, rules in (("scaleUp", CHART.up), ("scaleDown", CHART.down)):
        assert given[direction]["stabilizationWindowSeconds"] == rules.window_s
        assert given[direction].get("selectPolicy", "Max") == rules.select
        assert [
            (policy["type"], policy["value"], policy["periodSeconds"])
            for policy in given[direction]["policies"]
        ] == [(policy.kind, policy.value, policy.period_s) for policy in rules.policies]


def test_an_ordinary_day_keeps_the_promises() -> None:
    assert measure(simulate(replace(SMALL, capacity=32))).keeps
