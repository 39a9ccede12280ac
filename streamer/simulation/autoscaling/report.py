"""Shows the figures of several outcomes: as a table, as text, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from streamer.core.terminal import Table
from streamer.simulation.autoscaling.measures import (
    OVER_OPTIMUM,
    REFUSED_PERCENT,
    TURNS_PER_HOUR,
    Measures,
)
from streamer.simulation.autoscaling.scenario import Scenario

HEAD = (
    "day",
    "streams per replica",
    "cold start",
    "method",
    "target",
    "refused",
    "below rate",
    "/ optimum",
    "/ full",
    "turns/h",
    "most",
    "kept",
)
NOTE = (
    f"kept: refused below {REFUSED_PERCENT:g} % of openings, replica-hours at most {OVER_OPTIMUM:g} times\n"
    f"the optimum at the target, at most {TURNS_PER_HOUR:g} direction changes per hour beyond the demand's.\n"
    "below rate: share of time in which streams got less than they asked for.\n"
    "/ full: replica-hours over those of replicas that are always full. most: most pods at one time."
)


@dataclass(frozen=True, slots=True)
class Line:
    """Holds one scenario and its figures."""

    scenario: Scenario
    measures: Measures

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the table."""
        scenario, measures = self.scenario, self.measures
        return (
            scenario.day,
            f"{scenario.capacity:g}",
            duration(scenario.cold_start_s),
            scenario.method,
            f"{scenario.target:g} %",
            percent(measures.refused_percent),
            percent(measures.limited_percent),
            f"{measures.over_target_optimum:.2f}",
            f"{measures.over_full_optimum:.2f}",
            f"{measures.turns_per_hour:.1f}",
            f"{measures.most_replicas}",
            "yes" if measures.keeps else "no",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the scenario and its figures for JSON."""
        return {"scenario": asdict(self.scenario), **self.measures.to_dict()}


def table(lines: Sequence[Line]) -> Table:
    """Return the table of all outcomes."""
    numbers = frozenset(HEAD) - {"day", "method", "kept"}
    return Table("Autoscaling", HEAD, tuple(line.cells() for line in lines), numbers, NOTE)


def text(lines: Sequence[Line]) -> str:
    """Return the table as lines of text."""
    rows = [HEAD, *(line.cells() for line in lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([*(line.rstrip() for line in shown), "", NOTE])


def percent(value: float) -> str:
    """Return a share with the digits that matter; a small one is not shown as 0."""
    if value and value < 0.005:
        return "<0.01 %"
    return f"{value:.2f} %" if value < 10 else f"{value:.0f} %"


def duration(seconds: float) -> str:
    """Return a time in seconds, or minutes if that is a whole number."""
    return f"{seconds / 60:g} min" if seconds and seconds % 60 == 0 else f"{seconds:g} s"
