"""Finds the cheapest target and number of spares with which a release refuses next to nothing.

Both are tried from the cheap end: for each number of spares, the highest target that keeps the promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from streamer.core.terminal import Table
from streamer.simulation.autoscaling.days import DAY_S, STEP_S, day_shape
from streamer.simulation.autoscaling.loop import simulate
from streamer.simulation.autoscaling.measures import OVER_OPTIMUM, REFUSED_PERCENT, Measures, measure
from streamer.simulation.autoscaling.report import duration, percent
from streamer.simulation.autoscaling.scenario import Scenario

#: What is tried unless the user says otherwise.
TARGETS = (90.0, 85.0, 80.0, 75.0, 70.0, 60.0, 50.0, 40.0, 30.0, 20.0)
SPARES = (0, 1, 2, 4)
#: Seconds until a load is seen by the autoscaler: a scrape, a period of the HPA, and averaging.
DELAY_S = 45.0
HEAD = (
    "day",
    "streams per replica",
    "cold start",
    "growth",
    "target",
    "spares",
    "refused",
    "below rate",
    "/ full",
    "both",
)
NOTE = (
    "growth: most by which the streams multiply within the cold start and 45 s. target and spares: the\n"
    f"cheapest with which less than {REFUSED_PERCENT:g} % of openings are refused; none of those that were "
    "tried: -.\n"
    "/ full: hours of replicas and spares over those of replicas that are always full. both: whether\n"
    f"that is at most {OVER_OPTIMUM:g}."
)


@dataclass(frozen=True, slots=True)
class Advice:
    """Holds what was found for one scenario."""

    #: The scenario with the target and the spares that were found, or the last ones that were tried.
    scenario: Scenario
    measures: Measures
    #: Whether it refuses next to nothing.
    found: bool
    #: Largest factor by which the streams grow within a cold start.
    growth: float

    @property
    def keeps(self) -> bool:
        """Whether it refuses next to nothing and costs little more than replicas that are always full."""
        return self.found and self.measures.over_full_optimum <= OVER_OPTIMUM

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        scenario, measures = self.scenario, self.measures
        return (
            scenario.day,
            f"{scenario.capacity:g}",
            duration(scenario.cold_start_s),
            f"{self.growth:.2f}",
            f"{scenario.target:g} %" if self.found else "-",
            f"{scenario.spares}" if self.found else "-",
            percent(measures.refused_percent),
            percent(measures.limited_percent),
            f"{measures.over_full_optimum:.2f}",
            "yes" if self.keeps else "no",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the scenario and its figures for JSON."""
        return {
            "scenario": asdict(self.scenario),
            **self.measures.to_dict(),
            "found": self.found,
            "growth": round(self.growth, 3),
            "keeps": self.keeps,
        }


def growth(day: str, cold_start_s: float) -> float:
    """Return the largest factor by which the streams of a day multiply within a cold start and `DELAY_S`."""
    shape = day_shape(day)
    minutes = np.arange(len(shape)) * STEP_S
    later = np.interp(minutes + cold_start_s + DELAY_S, minutes, shape, period=DAY_S)
    present = shape > 0
    return float((later[present] / shape[present]).max())


def find(
    scenarios: Sequence[Scenario],
    targets: Sequence[float],
    spares: Sequence[int],
    seeds: Sequence[int],
    report: Callable[[str, float], None],
) -> list[Advice]:
    """Return the advice for each scenario, whose own target and spares do not matter.

    The promise must be kept with all ``seeds``. ``report`` gets a text and the completed share, 0 to 1.
    """
    found: list[Advice] = []
    for number, scenario in enumerate(scenarios):
        report(f"{number} of {len(scenarios)} found", number / len(scenarios))
        found.append(_find(scenario, sorted(targets, reverse=True), sorted(spares), seeds))
    return found


def _find(
    scenario: Scenario, targets: Sequence[float], spares: Sequence[int], seeds: Sequence[int]
) -> Advice:
    grown = growth(scenario.day, scenario.cold_start_s)
    kept: list[Advice] = []
    tried: list[Advice] = []
    for count in spares:
        for advice in _trials(replace(scenario, spares=count), targets, seeds, grown):
            tried.append(advice)
            if advice.found:
                kept.append(advice)
                break
            if kept and advice.measures.replica_hours >= min(_hours(each) for each in kept):
                break  # lower targets cost still more
    if kept:
        return min(kept, key=_hours)
    return min(tried, key=lambda each: each.measures.refused_percent)


def _trials(
    scenario: Scenario, targets: Sequence[float], seeds: Sequence[int], grown: float
) -> Iterator[Advice]:
    """Yield the outcome of each target, of the seed with which most is refused."""
    for target in targets:
        runs = [replace(scenario, target=target, seed=seed) for seed in seeds]
        measured = [(run, measure(simulate(run))) for run in runs]
        run, worst = max(measured, key=lambda each: each[1].refused_percent)
        yield Advice(run, worst, worst.refused_percent < REFUSED_PERCENT, grown)


def _hours(advice: Advice) -> float:
    return advice.measures.replica_hours


def table(found: Sequence[Advice]) -> Table:
    """Return the table of all advice."""
    return Table(
        "Targets and spares", HEAD, tuple(each.cells() for each in found), frozenset(HEAD[1:-1]), NOTE
    )


def text(found: Sequence[Advice]) -> str:
    """Return the table as lines of text."""
    rows = [HEAD, *(each.cells() for each in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([*(line.rstrip() for line in shown), "", NOTE])
