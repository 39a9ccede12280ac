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
from streamer.simulation.autoscaling.monitoring import Metrics
from streamer.simulation.autoscaling.population import draw
from streamer.simulation.autoscaling.rebalancing import ROUND_S
from streamer.simulation.autoscaling.replica import Replica
from streamer.simulation.autoscaling.scenario import Scenario

#: Seconds in which everything else advances.
STEP_S = 5.0
#: Period of the HPA (``--horizontal-pod-autoscaler-sync-period``).
SYNC_S = 15.0


@dataclass(frozen=True, slots=True)
class Trace:
    """Holds what was observed at each `SYNC_S`; all arrays have the shape (steps,)."""

    times: NDArray[np.float64]
    #: Streams that are there, served or not.
    streams: NDArray[np.int64]
    #: Replicas that the autoscaler has set, pods that exist, and pods that are ready.
    wanted: NDArray[np.int64]
    pods: NDArray[np.int64]
    ready: NDArray[np.int64]
    #: Streams that are served, those that were refused and wait, and those that get less than they ask for.
    served: NDArray[np.int64]
    waiting: NDArray[np.int64]
    limited: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Holds the result of one simulated scenario."""

    scenario: Scenario
    trace: Trace
    counts: Counts


def simulate(scenario: Scenario, report: Callable[[float], None] = lambda _: None) -> Outcome:
    """Simulate a scenario. ``report`` gets the completed share, 0 to 1, once per simulated hour."""
    population = draw(scenario, np.random.default_rng(scenario.seed))
    random = Random(scenario.seed)  # noqa: S311 - a simulation that can be repeated
    fleet = Fleet(scenario, population, random)
    faults = _moments(scenario.failures * scenario.days, scenario.duration_s, random)
    metrics = Metrics(_moments(scenario.outages * scenario.days, scenario.duration_s, random))
    limiter = Limiter(scenario.behavior, scenario.min_replicas, scenario.max_replicas)
    times = np.arange(0, scenario.duration_s, SYNC_S)
    streams = population.open_at(times)
    wanted = max(
        scenario.min_replicas,
        min(scenario.max_replicas, math.ceil(streams[0] / scenario.capacity / (scenario.target / 100))),
    )
    fleet.create(0.0, wanted, cold=False)
    rows = []
    for step, now in enumerate(np.arange(0, scenario.duration_s, STEP_S).tolist()):
        fleet.advance(now)
        while faults and faults[0] <= now:
            faults.pop(0)
            fleet.kill(now)
        if now % ROUND_S == 0:
            fleet.rebalance(now)
        metrics.scrape(now, step, fleet.replicas)
        if now % SYNC_S == 0:
            fleet.sweep(now)
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
    now: float, current: int, scenario: Scenario, fleet: Fleet, metrics: Metrics, limiter: Limiter
) -> int:
    """Let the autoscaler act once; return the number of replicas that it has set."""
    try:
        wanted = _recommend(now, current, scenario, fleet.replicas, metrics)
    except hpa.NoMetrics:
        return current
    result = limiter.apply(now, current, max(wanted, scenario.scheduled(now)))
    if result > current:
        fleet.create(now, result - current)
    elif result < current:
        fleet.remove(now, current - result)
    return result


def _recommend(
    now: float, current: int, scenario: Scenario, replicas: list[Replica], metrics: Metrics
) -> int:
    """Return the replicas that the metric asks for. Raises NoMetrics."""
    if scenario.method == "hpa":
        pods = [hpa.PodMetric(replica.phase(now), metrics.load(replica)) for replica in replicas]
        return hpa.for_pods_metric(current, scenario.target, pods)
    loads = metrics.release_loads(now, replicas)
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
        fleet.served,
        fleet.refused,
        sum(replica.limited_streams() for replica in replicas),
    )
