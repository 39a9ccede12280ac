"""Draws when each stream of a scenario begins and ends. What the autoscaler does has no influence on this."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamer.simulation.autoscaling.days import STEP_S, day_shape
from streamer.simulation.autoscaling.scenario import Scenario

#: Spread of the logarithm of durations: half of all streams are shorter than a third of the mean.
_SIGMA = 1.5


@dataclass(frozen=True, slots=True)
class Population:
    """Holds the streams, by the time of their start. Times are seconds; arrays have the shape (streams,)."""

    starts: NDArray[np.float64]
    #: Infinite for cameras that stay.
    ends: NDArray[np.float64]

    def open_at(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the number of streams at each time, served or not; same shape as ``times``."""
        begun = np.searchsorted(np.sort(self.starts), times, side="right")
        return np.asarray(begun - np.searchsorted(np.sort(self.ends), times, side="right"), np.int64)


def draw(scenario: Scenario, random: np.random.Generator) -> Population:
    """Draw the streams of the whole simulated time; those that are there at its beginning start at 0.

    Starts are a Poisson process. Durations are log-normal, which is heavy-tailed; where the number of streams
    falls faster than they end by themselves, nothing starts.
    """
    mean_s = scenario.minutes * 60
    location = math.log(mean_s) - _SIGMA**2 / 2
    shape = np.tile(day_shape(scenario.day), scenario.days) * scenario.peak_streams
    cameras = round(scenario.permanent * scenario.peak_streams)
    viewers = np.maximum(shape - cameras, 0)
    counts = random.poisson(_starts_per_step(viewers, location, mean_s))
    starts = np.repeat(np.arange(len(counts)) * STEP_S, counts) + random.uniform(0, STEP_S, counts.sum())
    durations = random.lognormal(location, _SIGMA, len(starts))
    first = random.poisson(viewers[0])
    # A stream that one meets is a long one (its length counts twice), and it is somewhere within its time.
    remaining = random.lognormal(location + _SIGMA**2, _SIGMA, first) * random.uniform(0, 1, first)
    all_starts = np.concatenate([np.zeros(cameras + first), starts])
    all_ends = np.concatenate([np.full(cameras, np.inf), remaining, starts + durations])
    order = np.argsort(all_starts, kind="stable")
    return Population(all_starts[order], all_ends[order])


def _starts_per_step(viewers: NDArray[np.float64], location: float, mean_s: float) -> NDArray[np.float64]:
    """Return how many streams must start in each step, so that the expected number is ``viewers``.

    The number of streams in a queue with infinitely many servers is the sum over earlier starts, each
    weighted with the probability that the stream is still there. This solves the sum step by step.
    """
    steps = len(viewers)
    ages = (np.arange(steps) + 0.5) * STEP_S
    alive = np.array([0.5 * math.erfc((math.log(age) - location) / (_SIGMA * math.sqrt(2))) for age in ages])
    # Of those that are there at the beginning: the remaining time has the integral of `alive` as its tail.
    left = np.maximum(0, 1 - np.cumsum(alive) * STEP_S / mean_s)
    needed = np.zeros(steps)
    backwards = alive[::-1]
    for step in range(steps):
        there = viewers[0] * left[step] + needed[:step] @ backwards[steps - 1 - step : steps - 1]
        needed[step] = max(0.0, (viewers[step] - there) / alive[0])
    return needed
