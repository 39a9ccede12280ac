"""Runs one scenario: the fleet, the scrapes of Prometheus, and the autoscaler, in steps of five seconds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from streamer.simulation.autoscaling import hpa
from streamer.simulation.autoscaling.behavior import Limiter
from streamer.simulation.autoscaling.fleet import Counts, Fleet
from streamer.simulation.autoscaling.population import Population, draw
from streamer.simulation.autoscaling.replica import Replica
from streamer.simulation.autoscaling.scenario import Scenario

STEP_S = 5.0
#: Period of the HPA (``--horizontal-pod-autoscaler-sync-period``), and of the scrapes of Prometheus.
SYNC_S = 15.0
#: Period in which the fullest replica gives streams away.
_REBALANCE_S = 60.0
#: Length of an interruption of the metrics.
_OUTAGE_S = 600.0
#: Prometheus cannot scrape half of the replicas in one interruption, and answers nothing in the next.
_PARTIAL = 0.5


@dataclass(frozen=True, slots=True)
class Trace:
    """Holds what was observed at each `STEP_S`; all arrays have the shape (steps,)."""

    times: NDArray[np.float64]
    #: Streams that are there, served or not, and what they ask for, in frames per second.
    streams: NDArray[np.int64]
    #: Replicas that the autoscaler has set, pods that exist, and pods that are ready.
    wanted: NDArray[np.int64]
    pods: NDArray[np.int64]
    ready: NDArray[np.int64]
    #: Streams that wait for a replica, and streams that get less than they ask for.
    waiting: NDArray[np.int64]
    limited: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Holds the result of one simulated scenario."""

    scenario: Scenario
    trace: Trace
    counts: Counts


class _Metrics:
    """Simulates what Prometheus knows: the load of each replica at its last scrape, unless that failed."""

    def __init__(self, outages: list[float]) -> None:
        self._outages = outages
        self._loads: dict[int, float] = {}
        self._down = False

    def scrape(self, now: float, step: int, replicas: list[Replica]) -> None:
        """Scrape a third of the replicas, those whose turn it is in this step."""
        outage = next((i for i, at in enumerate(self._outages) if at <= now < at + _OUTAGE_S), None)
        self._down = outage is not None and outage % 2 == 1
        names = {replica.number for replica in replicas}
        self._loads = {name: load for name, load in self._loads.items() if name in names}
        for replica in replicas:
            if replica.number % 3 != step % 3:
                continue
            hidden = outage is not None and outage % 2 == 0 and (replica.number // 3 % 2 < 2 * _PARTIAL - 0.5)
            if now < replica.ready_at or replica.died_at is not None or hidden:
                self._loads.pop(replica.number, None)
            else:
                self._loads[replica.number] = replica.load_percent(now)

    def load(self, replica: Replica) -> float | None:
        """Return the load of a replica in percent; None if there is none."""
        return None if self._down else self._loads.get(replica.number)


def simulate(scenario: Scenario, report: Callable[[float], None] = lambda _: None) -> Outcome:
    """Simulate a scenario. ``report`` gets the completed share, 0 to 1, once per simulated hour."""
    population = draw(scenario, np.random.default_rng(scenario.seed))
    random = Random(scenario.seed)  # noqa: S311 - a simulation that can be repeated
    fleet = Fleet(scenario, population, random)
    faults = _moments(scenario.failures * scenario.days, scenario.duration_s, random)
    metrics = _Metrics(_moments(scenario.outages * scenario.days, scenario.duration_s, random))
    limiter = Limiter(scenario.behavior, scenario.min_replicas, scenario.max_replicas)
    times = np.arange(0, scenario.duration_s, STEP_S)
    streams = population.open_at(times)
    wanted = max(
        scenario.min_replicas,
        min(scenario.max_replicas, math.ceil(streams[0] / scenario.capacity / (scenario.target / 100))),
    )
    fleet.create(0.0, wanted, cold=False)
    rows = []
    for step, now in enumerate(times.tolist()):
        fleet.advance(now)
        while faults and faults[0] <= now:
            faults.pop(0)
            fleet.kill(now)
        fleet.sweep(now)
        if scenario.rebalance and now % _REBALANCE_S == 0:
            fleet.rebalance(now, scenario.rebalance / 100)
        metrics.scrape(now, step, fleet.replicas)
        if now % SYNC_S == 0:
            wanted = _sync(now, wanted, scenario, fleet, metrics, limiter)
        rows.append(_observe(now, wanted, fleet))
        if now % 3600 == 0:
            report(now / scenario.duration_s)
    columns = np.array(rows, np.int64).T
    return Outcome(scenario, Trace(times, streams, *columns), fleet.counts)


def _moments(number: float, duration_s: float, random: Random) -> list[float]:
    """Return the times of rare events: as many as expected, at random times after the first hour."""
    whole = int(number) + (random.random() < number % 1)
    return sorted(random.uniform(3600, duration_s) for _ in range(whole))


def _sync(
    now: float, current: int, scenario: Scenario, fleet: Fleet, metrics: _Metrics, limiter: Limiter
) -> int:
    """Let the autoscaler act once; return the number of replicas that it has set."""
    try:
        wanted = _recommend(now, current, scenario, fleet.replicas, metrics)
    except hpa.NoMetrics:
        return current
    result = limiter.apply(now, current, wanted)
    if result > current:
        fleet.create(now, result - current)
    elif result < current:
        fleet.remove(now, current - result)
    return result


def _recommend(
    now: float, current: int, scenario: Scenario, replicas: list[Replica], metrics: _Metrics
) -> int:
    """Return the replicas that the metric asks for. Raises NoMetrics."""
    if scenario.method == "hpa":
        pods = [hpa.PodMetric(replica.phase(now), metrics.load(replica)) for replica in replicas]
        return hpa.for_pods_metric(current, scenario.target, pods)
    loads = [load for load in map(metrics.load, replicas) if load is not None]
    if not loads:
        raise hpa.NoMetrics
    existing = [replica for replica in replicas if not replica.draining]
    if scenario.method == "keda":
        return hpa.for_external_average(len(existing), scenario.target, sum(loads))
    ready = sum(replica.is_ready(now) for replica in existing)
    # The fullest replica, and not the mean: the share of frames that a release drops behaves alike.
    return hpa.for_external_value(current, ready, scenario.target, max(loads))


def _observe(now: float, wanted: int, fleet: Fleet) -> tuple[int, ...]:
    replicas = fleet.replicas
    return (
        wanted,
        len(replicas),
        sum(replica.is_ready(now) for replica in replicas),
        fleet.waiting(),
        sum(replica.limited_streams() for replica in replicas),
    )


__all__ = ["Outcome", "Population", "Trace", "simulate"]
