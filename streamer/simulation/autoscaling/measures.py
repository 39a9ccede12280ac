"""Measures the outcome of a simulation against what autoscaling promises. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.simulation.autoscaling.loop import SYNC_S, Outcome

#: The promises: share of refused openings in percent, replica-hours over the optimum, and direction changes
#: of the number of replicas per hour beyond those of the demand.
REFUSED_PERCENT = 0.1
OVER_OPTIMUM = 1.3
TURNS_PER_HOUR = 0.5


@dataclass(frozen=True, slots=True)
class Measures:
    """Holds the figures of one outcome."""

    #: Openings (starts, and returns after a failure, drain or move), and the share refused at least once.
    openings: int
    refused_percent: float
    #: Mean time for which a refused stream waited, in seconds.
    refused_wait_s: float
    #: Share of the time of streams in which they got less than they asked for.
    limited_percent: float
    moved: int
    #: Hours of pods that exist, also while they start or drain, and of spares, which cost as much.
    replica_hours: float
    #: The same over those of the least number that holds the demand at each moment: at the target, and full.
    over_target_optimum: float
    over_full_optimum: float
    #: Direction changes of the replicas per hour, beyond the demand's own.
    turns_per_hour: float
    #: All direction changes of the replicas per hour.
    all_turns_per_hour: float
    #: Pods that exist, at their highest.
    most_replicas: int

    @property
    def keeps(self) -> bool:
        """Whether the outcome keeps all promises."""
        return (
            self.refused_percent < REFUSED_PERCENT
            and self.over_target_optimum <= OVER_OPTIMUM
            and self.turns_per_hour <= TURNS_PER_HOUR
        )

    def to_dict(self) -> dict[str, float | int | bool]:
        """Return the figures by name, and whether they keep the promises."""
        return {**asdict(self), "keeps": self.keeps}


def measure(outcome: Outcome) -> Measures:
    """Return the figures of an outcome."""
    scenario, trace, counts = outcome.scenario, outcome.trace, outcome.counts
    full = trace.streams / scenario.capacity
    load = full / (scenario.target / 100)
    hours = (float(trace.pods.sum()) * SYNC_S + scenario.spares * scenario.duration_s) / 3600
    turns = direction_changes(trace.wanted, 1)
    of_demand = direction_changes(load, 1)
    return Measures(
        openings=counts.openings,
        refused_percent=100 * counts.refused / max(1, counts.openings),
        refused_wait_s=counts.waited_s / max(1, counts.refused),
        limited_percent=100 * float(trace.limited.sum()) / max(1, float(trace.served.sum())),
        moved=counts.moved,
        replica_hours=hours,
        over_target_optimum=hours / _least_hours(load, scenario.min_replicas),
        over_full_optimum=hours / _least_hours(full, scenario.min_replicas),
        turns_per_hour=max(0, turns - of_demand) / (scenario.duration_s / 3600),
        all_turns_per_hour=turns / (scenario.duration_s / 3600),
        most_replicas=int(trace.pods.max()),
    )


def direction_changes(values: NDArray[np.float64] | NDArray[np.int64], threshold: float) -> int:
    """Return how often a series turns, not counting swings smaller than ``threshold``."""
    turns, direction = 0, 0
    extreme = float(values[0])
    for value in values[np.flatnonzero(np.diff(values, prepend=values[0] - 1))].tolist():
        if (direction >= 0 and value > extreme) or (direction <= 0 and value < extreme):
            if direction == 0 and abs(value - extreme) >= threshold:
                direction = 1 if value > extreme else -1
            if direction:
                extreme = value
        elif abs(value - extreme) >= threshold:
            turns, direction, extreme = turns + 1, -direction, value
    return turns


def _least_hours(load: NDArray[np.float64], minimum: int) -> float:
    least = np.maximum(np.ceil(load - 1e-9), max(1, minimum))
    return float(least.sum()) * SYNC_S / 3600
