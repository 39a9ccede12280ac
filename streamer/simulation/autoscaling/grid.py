"""Runs every combination of several values of a scenario."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from streamer.simulation.autoscaling.behavior import CHART, Behavior, Policy, Rules
from streamer.simulation.autoscaling.loop import Outcome, simulate
from streamer.simulation.autoscaling.measures import measure
from streamer.simulation.autoscaling.report import Line
from streamer.simulation.autoscaling.scenario import Scenario


def behavior(up: str | None, up_window: int | None, down: str | None, down_window: int | None) -> Behavior:
    """Return the chart's behaviour with the given changes: comma-separated policies, windows in seconds.

    Raises BadScenario.
    """
    return Behavior(_rules(CHART.up, up, up_window), _rules(CHART.down, down, down_window))


def _rules(rules: Rules, policies: str | None, window_s: int | None) -> Rules:
    if policies is not None:
        rules = replace(rules, policies=tuple(Policy.parse(each) for each in policies.split(",")))
    return rules if window_s is None else replace(rules, window_s=window_s)


def combinations(base: Scenario, **values: Sequence[Any]) -> list[Scenario]:
    """Return ``base`` with every combination of the values of its fields; the last field varies fastest."""
    return [
        replace(base, **dict(zip(values, each, strict=True))) for each in itertools.product(*values.values())
    ]


def run(
    scenarios: Sequence[Scenario],
    report: Callable[[str, float], None],
    keep: Callable[[Outcome], None] = lambda _: None,
) -> list[Line]:
    """Simulate all scenarios in turn.

    ``report`` gets a text and the completed share, 0 to 1. ``keep`` gets each outcome.
    """
    lines: list[Line] = []
    for number, scenario in enumerate(scenarios):

        def progress(share: float, number: int = number) -> None:
            report(f"{number + 1} of {len(scenarios)} runs", (number + share) / len(scenarios))

        outcome = simulate(scenario, progress)
        keep(outcome)
        lines.append(Line(scenario, measure(outcome)))
    return lines
