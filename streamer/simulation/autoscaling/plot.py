"""Plots one simulated outcome: replicas against the optimum, and what streams missed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streamer.simulation.autoscaling.loop import Outcome
from streamer.simulation.autoscaling.report import duration
from streamer.simulation.errors import BadScenario
from streamer.simulation.line_chart import BLUE, GREEN, GREY, RED, Panel, Series, line_chart


def plot(outcome: Outcome, title: str | None = None) -> str:
    """Return an SVG document; the default title names the day, the capacity and the cold start."""
    scenario, trace = outcome.scenario, outcome.trace
    full = trace.streams / scenario.capacity
    optimum = np.maximum(np.ceil(full / (scenario.target / 100)), scenario.min_replicas)
    return line_chart(
        title
        or f"{scenario.day}, {scenario.method}, {scenario.capacity:g} streams per replica, "
        f"cold start {duration(scenario.cold_start_s)}",
        scenario.duration_s / 3600,
        (
            Panel(
                "replicas",
                (
                    Series("ready", trace.ready, BLUE),
                    Series(f"optimum at {scenario.target:g} %", optimum, RED, dashed=True),
                    Series("demand", full, GREY),
                ),
            ),
            Panel(
                "streams",
                (
                    Series("below their rate", trace.limited, GREEN),
                    Series("refused, waiting", trace.waiting, RED),
                ),
            ),
        ),
    )


def write_plot(outcome: Outcome, path: Path) -> None:
    """Write the plot into an SVG file. Raises BadScenario."""
    if path.suffix.lower() != ".svg":
        raise BadScenario(f"--plot: expected a name that ends in .svg; found {str(path)!r}")
    try:
        path.write_text(plot(outcome))
    except OSError as error:
        raise BadScenario(f"--plot: {path}: {error.strerror}") from error
