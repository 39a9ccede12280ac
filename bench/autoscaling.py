"""Simulates the grid of docs/operations/autoscaling-simulation.md, and writes its tables and plots.

Run it with ``make bench BENCH=autoscaling``. It takes some minutes of processor time, needs neither a service
nor a cluster, and gives the same figures on every machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from streamer.simulation.autoscaling.advice import SPARES, find, growth
from streamer.simulation.autoscaling.behavior import CHART, Behavior, Policy, Rules
from streamer.simulation.autoscaling.loop import simulate
from streamer.simulation.autoscaling.measures import Measures, measure
from streamer.simulation.autoscaling.plot import plot
from streamer.simulation.autoscaling.report import duration, percent
from streamer.simulation.autoscaling.scenario import Method, Scenario, Scheduled

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "operations" / "autoscaling-simulation.md"
BEGIN = "<!-- begin of the {}: make bench BENCH=autoscaling -->"
END = "<!-- end of the {} -->"

DAYS = ("weekday", "weekend", "ramp", "flash")
#: The largest releases take longest to simulate, so each of them has one method.
CAPACITIES: dict[float, tuple[Method, ...]] = {
    7.0: ("hpa", "keda"),
    32.0: ("hpa", "keda"),
    180.0: ("hpa",),
    680.0: ("keda",),
}
COLD_STARTS = (10.0, 60.0, 180.0, 600.0)
METHODS: tuple[Method, ...] = ("hpa", "keda")
#: Names of streams that accept half their rate under overload, and of those that accept nothing less.
GIVING, RIGID = "10 fps, at least 5", "5 fps, at least 5"
RATES = {GIVING: (10.0,), RIGID: (5.0,)}
ADVISED_TARGETS = (95.0, 90.0, 85.0, 80.0, 75.0, 70.0, 60.0, 50.0, 40.0, 30.0, 20.0)
TARGETS = (75.0, 70.0, 60.0, 50.0, 40.0, 30.0, 20.0, 10.0)
#: Runs whose course is drawn, by the name of the image.
PLOTS = {
    "weekday": Scenario(day="weekday", cold_start_s=180),
    "ramp": Scenario(day="ramp", cold_start_s=600),
    "value": Scenario(day="weekday", cold_start_s=60, method="keda-value", rebalance=0),
}


#: Times at which a day starts replicas before its load comes.
SCHEDULES = {
    "weekday": (Scheduled(5.8, 8, 6), Scheduled(7, 9, 11)),
    "ramp": (Scheduled(5.5, 7, 12),),
    "flash": (Scheduled(11.8, 13.1, 12),),
}
#: Days and cold starts for which advice is found, and whether without a schedule and with one.
ADVISED = (
    ("weekday", 60.0, True, False),
    ("weekday", 180.0, True, False),
    ("weekday", 600.0, True, True),
    ("weekend", 600.0, True, False),
    ("ramp", 180.0, False, True),
    ("ramp", 600.0, False, True),
    ("flash", 180.0, False, True),
    ("flash", 600.0, False, True),
)


class Runs:
    """Runs scenarios in all processors, each only once."""

    def __init__(self) -> None:
        self._measures: dict[Scenario, Measures] = {}

    def run(self, scenarios: Iterable[Scenario]) -> None:
        """Run those scenarios that have not run yet."""
        # Long runs begin first, so that no processor waits for the last one.
        wanted = sorted(set(scenarios) - set(self._measures), key=lambda each: -each.peak_streams)
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            for scenario, found in zip(wanted, pool.map(_measure, wanted), strict=True):
                self._measures[scenario] = found
                sys.stderr.write(f"\r{len(self._measures)} runs")
        sys.stderr.write("\n")

    def __getitem__(self, scenario: Scenario) -> Measures:
        return self._measures[scenario]


def _measure(scenario: Scenario) -> Measures:
    return measure(simulate(scenario))


def grid(day: str, cold_start_s: float, rates: str) -> list[Scenario]:
    """Return the scenarios of one cell: every capacity and method."""
    return [
        Scenario(day=day, cold_start_s=cold_start_s, fps=RATES[rates], capacity=capacity, method=method)
        for capacity, methods in CAPACITIES.items()
        for method in methods
    ]


def worst(found: Sequence[Measures]) -> str:
    """Return a cell: the largest share of refusals, and of time below the asked rate."""
    refused = max(each.refused_percent for each in found)
    limited = max(each.limited_percent for each in found)
    cell = percent(refused) if refused < 0.1 else f"**{percent(refused)}**"
    return f"{cell}, {percent(limited)}"


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def refusals(runs: Runs, rates: str) -> list[str]:
    """Return the table of refusals by day and cold start."""
    lines = [
        row(f"streams of {rates}", *(f"cold start {duration(each)}" for each in COLD_STARTS)),
        row(*["---"] * (1 + len(COLD_STARTS))),
    ]
    for day in DAYS:
        cells = (worst([runs[each] for each in grid(day, cold, rates)]) for cold in COLD_STARTS)
        lines.append(row(day, *cells))
    return lines


def replicas(runs: Runs) -> list[str]:
    """Return the table of replica-hours and direction changes by capacity."""
    lines = [
        row("streams per replica", "over the optimum at the target", "over full replicas", "turns per hour"),
        row(*["---"] * 4),
    ]
    for capacity in CAPACITIES:
        found = [
            runs[each]
            for day in DAYS
            for cold in COLD_STARTS
            for each in grid(day, cold, GIVING)
            if each.capacity == capacity
        ]
        lines.append(
            row(
                f"{capacity:g}",
                _range([each.over_target_optimum for each in found]),
                _range([each.over_full_optimum for each in found]),
                _range([each.turns_per_hour for each in found]),
            )
        )
    return lines


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


#: Nodes that die and outages of metrics per day, and the target.
FAULTS = {
    "none": (0.0, 0.0, 75.0),
    "6 outages of metrics": (0.0, 6.0, 75.0),
    "6 nodes die": (6.0, 0.0, 75.0),
    "both": (6.0, 6.0, 75.0),
    "both, target 50 %": (6.0, 6.0, 50.0),
}


def with_faults(fault: str, rates: str, cold_start_s: float) -> list[Scenario]:
    """Return weekdays on which things go wrong, of every method."""
    failures, outages, target = FAULTS[fault]
    base = Scenario(fps=RATES[rates], cold_start_s=cold_start_s, failures=failures, outages=outages)
    return [
        replace(base, method=method, capacity=capacity, target=target)
        for method in METHODS
        for capacity in (7.0, 32.0)
    ]


def faults(runs: Runs) -> list[str]:
    """Return the table of faults on a weekday."""
    columns = [(rates, cold) for rates in (GIVING, RIGID) for cold in (60.0, 600.0)]
    lines = [
        row("faults per day", *(f"{rates}; {duration(cold)}" for rates, cold in columns)),
        row(*["---"] * (1 + len(columns))),
    ]
    for fault in FAULTS:
        cells = (worst([runs[each] for each in with_faults(fault, rates, cold)]) for rates, cold in columns)
        lines.append(row(fault, *cells))
    return lines


def search_targets(runs: Runs) -> dict[tuple[str, str, float], float]:
    """Return the highest of `TARGETS` with which a day keeps its promise, by rates, day and cold start."""
    found: dict[tuple[str, str, float], float] = {}
    for target in TARGETS:
        # Small replicas are the hardest, because their streams are spread least evenly.
        wanted = {
            (rates, day, cold): [
                Scenario(day=day, cold_start_s=cold, fps=RATES[rates], target=target, capacity=capacity)
                for capacity in (7.0, 32.0)
            ]
            for rates in RATES
            for day in DAYS
            for cold in COLD_STARTS
            if (rates, day, cold) not in found
        }
        runs.run(each for scenarios in wanted.values() for each in scenarios)
        for cell, scenarios in wanted.items():
            if all(runs[each].refused_percent < 0.1 for each in scenarios):
                found[cell] = target
    return found


def advised(scenario: Scenario, spares: Sequence[int] = SPARES) -> str:
    """Return a cell: the cheapest target and spares, and their cost over replicas that are always full."""
    (found,) = find([scenario], ADVISED_TARGETS, spares, (0,), lambda _text, _share: None)
    if not found.found:
        return "-"
    cost = f"{found.measures.over_full_optimum:.2f}"
    cost = cost if found.keeps else f"**{cost}**"
    return f"{found.scenario.target:g} %, {found.scenario.spares}, {cost}"


def advice(_runs: Runs) -> list[str]:
    """Return the table of the cheapest targets and spares, by load balancer and with a schedule."""
    lines = [
        row(
            *("day", "cold start", "growth", "streams go to a random replica: target, spares, cost"),
            *("to the one with fewest", "scheduled, to the one with fewest"),
        ),
        row(*["---"] * 6),
    ]
    for day, cold, balanced, scheduled in ADVISED:
        base = Scenario(day=day, cold_start_s=cold, fps=RATES[RIGID])
        least = replace(base, route="least")
        lines.append(
            row(
                day,
                duration(cold),
                f"{growth(day, cold):.2f}",
                advised(base),
                advised(least) if balanced else "",
                advised(replace(least, schedule=SCHEDULES[day]), (0,)) if scheduled else "",
            )
        )
    return lines


def highest_targets(runs: Runs) -> list[str]:
    """Return the table of the highest targets without refusals, for days that are harder than the default."""
    lines = [
        row("highest target", *(f"cold start {duration(each)}" for each in COLD_STARTS)),
        row(*["---"] * (1 + len(COLD_STARTS))),
    ]
    found = search_targets(runs)
    for rates in RATES:
        for day in DAYS:
            targets = [found.get((rates, day, cold)) for cold in COLD_STARTS]
            cells = (f"{each:g} %" if each else f"below {min(TARGETS):g} %" for each in targets)
            lines.append(row(f"{day}, {rates}", *cells))
    return lines


def policies(text: str) -> tuple[Policy, ...]:
    return tuple(Policy.parse(each) for each in text.split(","))


#: What the chart's behaviour is compared with: 60 replicas at the peak, streams that accept nothing less.
LARGE = Scenario(day="ramp", capacity=7, peak=420, fps=RATES[RIGID], cold_start_s=10)
COMPARED = {
    "the chart": LARGE,
    "up: 2 pods per minute, after 30 s": replace(
        LARGE, behavior=Behavior(Rules(30, policies("2/60")), CHART.down)
    ),
    "up: after 30 s": replace(LARGE, behavior=Behavior(replace(CHART.up, window_s=30), CHART.down)),
    "down: at once": replace(LARGE, behavior=Behavior(CHART.up, Rules(0, policies("100%/15")))),
    "down: after 5 minutes, any number": replace(
        LARGE, behavior=Behavior(CHART.up, Rules(300, policies("100%/15")))
    ),
    "no rebalancing": replace(LARGE, rebalance=0),
    "fewest streams first, no rebalancing": replace(LARGE, rebalance=0, route="least"),
    "the emptiest replica is removed first": replace(LARGE, remove="emptiest"),
    "target 100 %": replace(LARGE, target=100),
    "KEDA with the type Value": replace(LARGE, method="keda-value"),
}


def comparison(runs: Runs) -> list[str]:
    """Return the table of other behaviours."""
    lines = [
        row("", "refused", "moved", "over the optimum", "turns per hour", "most pods"),
        row(*["---"] * 6),
    ]
    for name, scenario in COMPARED.items():
        found = runs[scenario]
        lines.append(
            row(
                name,
                percent(found.refused_percent),
                f"{found.moved:,}",
                f"{found.over_target_optimum:.2f}",
                f"{found.turns_per_hour:.1f}",
                f"{found.most_replicas}",
            )
        )
    return lines


def replace_part(page: str, name: str, lines: Sequence[str]) -> str:
    """Return the page with the lines between the marks of a table."""
    before, begin, rest = page.partition(BEGIN.format(name))
    _, end, after = rest.partition(END.format(name))
    if not begin or not end:
        raise SystemExit(f"{PAGE.name} has no marks of the {name}")
    return "\n".join([before + begin, *lines, end + after])


def main() -> int:
    """Run the grid and rewrite the page and the images."""
    runs = Runs()
    runs.run(
        [
            *(
                each
                for rates in RATES
                for day in DAYS
                for cold in COLD_STARTS
                for each in grid(day, cold, rates)
            ),
            *(
                each
                for fault in FAULTS
                for rates in RATES
                for cold in (60.0, 600.0)
                for each in with_faults(fault, rates, cold)
            ),
            *COMPARED.values(),
        ]
    )
    page = PAGE.read_text()
    page = replace_part(page, "refusals", [*refusals(runs, GIVING), "", *refusals(runs, RIGID)])
    page = replace_part(page, "replicas", replicas(runs))
    page = replace_part(page, "faults", faults(runs))
    page = replace_part(page, "targets", highest_targets(runs))
    page = replace_part(page, "advice", advice(runs))
    PAGE.write_text(replace_part(page, "comparison", comparison(runs)))
    for name, scenario in PLOTS.items():
        (DOCS / "images" / f"autoscaling-{name}.svg").write_text(plot(simulate(scenario)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
