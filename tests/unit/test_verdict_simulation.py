"""The verdict on simulated worlds: the same model twice, a model that loses boxes, and streams of many kinds.

Each run is looked at after every window. `PYTEST_VERDICT_RUNS=500` makes as many runs as the documentation
names.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable

import numpy as np
import pytest

from streamer.comparison.sequential_test import LEAST_UNITS, Floats, Series, log_threshold
from streamer.comparison.verdict import ALPHA

#: Runs of each world. One false alarm in 60 runs is no proof of anything, so the limit of few runs is wider.
RUNS = int(os.environ.get("PYTEST_VERDICT_RUNS", "60"))
#: What one of the four quantities may use of the probability of error.
SHARE = ALPHA / 2 / 4
World = Callable[[np.random.Generator], Floats]


def first_alarm(
    a: Floats, b: Floats, streams: Callable[[int], tuple[Floats, Floats]] | None = None
) -> int | None:
    """Return after how many windows a ratio of 0 was first rejected, looking after every window."""
    for count in range(LEAST_UNITS, len(a) + 1):
        nothing = np.empty(0), np.empty(0)
        series = Series(a[:count], b[:count], *(streams(count) if streams else nothing))
        if series.units << series.doublings != count:
            continue  # no unit has been completed, so nothing has changed
        evidence, _ = series.evidence(np.zeros(1))
        if evidence[0] >= log_threshold(SHARE, series.doublings):
            return count
    return None


def alarms(world: World, runs: int = RUNS) -> float:
    """Return the share of runs in which the world looked different at any time."""
    rng = np.random.default_rng(2)
    found = 0
    for _ in range(runs):
        values = world(rng)
        found += first_alarm(values, np.full(len(values), 100.0)) is not None
    return found / runs


def autoregressive(rng: np.random.Generator, windows: int, streams: int, tau: float) -> Floats:
    """Return correlated series of variance 1, (windows, streams); ``tau`` is the time constant in windows."""
    keep = math.exp(-1 / tau) if tau else 0.0
    noise = rng.normal(size=(windows, streams))
    for row in range(1, windows):
        noise[row] = keep * noise[row - 1] + math.sqrt(1 - keep * keep) * noise[row]
    return noise


def mixed(rng: np.random.Generator, windows: int, streams: int, tau: float, common: float = 0.0) -> Floats:
    """Return the sum over streams of very different sizes, which share a part of their noise."""
    own = autoregressive(rng, windows, streams, tau)
    shared = autoregressive(rng, windows, 1, tau)
    sizes = np.exp(rng.normal(size=streams))
    total: Floats = ((math.sqrt(1 - common) * own + math.sqrt(common) * shared) * sizes).sum(axis=1)
    return total


@pytest.mark.parametrize(
    ("world", "most"),
    [
        (lambda rng: rng.normal(size=250), 0.05),
        (lambda rng: rng.laplace(size=250), 0.05),
        (lambda rng: rng.exponential(size=250) - 1, 0.05),
        # One stream with many blocks, of independent windows to correlation over three hours.
        (lambda rng: mixed(rng, 250, 1, tau=3), 0.05),
        (lambda rng: mixed(rng, 250, 1, tau=12), 0.05),
        (lambda rng: mixed(rng, 250, 4, tau=36), 0.05),
        # Many streams with few blocks each, which weather hits together.
        (lambda rng: mixed(rng, 45, 100, tau=0), 0.05),
        (lambda rng: mixed(rng, 60, 20, tau=3, common=0.5), 0.05),
        # A class that is in one window of thirty.
        (lambda rng: np.where(rng.random(250) < 1 / 30, mixed(rng, 250, 1, tau=0), 0), 0.05),
    ],
    ids=[
        "normal",
        "long tails",
        "skewed",
        "15 min",
        "1 h",
        "3 h, 4 streams",
        "100 streams",
        "weather",
        "rare",
    ],
)
def test_equal_models_are_told_apart_in_at_most_a_twentieth_of_the_runs(world: World, most: float) -> None:
    assert alarms(world) <= most + (0.0 if RUNS >= 500 else 1 / RUNS)


def test_short_streams_count_as_a_choice_from_many_streams() -> None:
    """Scenes that suit one model or the other last 100 minutes, three at a time."""
    life, runs = 20, RUNS
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(runs):
        lean = np.repeat(rng.normal(size=(10, 3)), life, axis=0)
        values = lean + rng.normal(size=lean.shape)

        def streams(count: int, values: Floats = values) -> tuple[Floats, Floats]:
            begins = range(0, count, life)
            sums = np.concatenate([values[at : min(at + life, count)].sum(axis=0) for at in begins])
            sizes = np.concatenate([np.full(3, min(life, count - at) * 100.0) for at in begins])
            return sums, sizes

        found += first_alarm(values.sum(axis=1), np.full(len(values), 300.0), streams) is not None
    assert found / runs <= 0.05 + (0.0 if runs >= 500 else 1 / runs)


def test_frames_taken_as_independent_would_alarm_nearly_always() -> None:
    """The control: the worlds are hard, and a test by frames or by plain windows fails in them."""
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(40):
        values = mixed(rng, 100, 1, tau=12)
        counts = np.arange(LEAST_UNITS, len(values) + 1)
        sums, squares = np.cumsum(values)[LEAST_UNITS - 1 :], np.cumsum(values**2)[LEAST_UNITS - 1 :]
        found += bool((np.abs(sums) > 2 * np.sqrt(squares)).any() and len(counts))
    assert found > 20


@pytest.mark.parametrize(("tau", "windows"), [(0.0, 45), (3.0, 160)])
def test_a_tenth_of_lost_boxes_is_found(tau: float, windows: int) -> None:
    """Each window has some 250 boxes. The second model loses a tenth, give or take a quarter of that."""
    rng = np.random.default_rng(5)
    times: list[float] = []
    for _ in range(20):
        boxes = 250 * np.exp(0.5 * autoregressive(rng, 300, 1, 12.0)[:, 0])
        lost = boxes * (0.1 + 0.025 * autoregressive(rng, 300, 1, tau)[:, 0])
        times.append(first_alarm(-lost, boxes) or math.inf)
    assert statistics.median(times) <= windows
