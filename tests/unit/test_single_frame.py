"""Measured run times settle single frames on one core or all, whichever is quicker, and without flapping."""

from __future__ import annotations

import random

import pytest

from inference.core.single_frame import EARLY_EVERY, LATE_EVERY, TEST_RUNS, WINS, SingleFrameChoice

#: Seconds that YOLOX-nano needs for a frame on one and on both of two slow cores.
NARROW_S, WIDE_S = 0.050, 0.029


def serve(
    choice: SingleFrameChoice,
    frames: int,
    narrow_s: float,
    wide_s: float,
    *,
    noise: float = 0.1,
    seed: int = 1,
) -> int:
    """Run single frames on a simulated detector and return how many ran on all cores."""
    rng = random.Random(seed)
    wide_runs = 0
    for _ in range(frames):
        all_cores = choice.next()
        wide_runs += all_cores
        cost = (wide_s if all_cores else narrow_s) * rng.lognormvariate(0.0, noise)
        # In 5 % of the runs another program takes processor time.
        choice.ran(cost * (4.0 if rng.random() < 0.05 else 1.0), all_cores=all_cores)
    return wide_runs


@pytest.mark.parametrize("begins", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_every_start_ends_with_the_quicker_way(begins: bool, seed: int) -> None:
    choice = SingleFrameChoice(all_cores=begins)
    serve(choice, EARLY_EVERY * (TEST_RUNS + WINS + 4), NARROW_S, WIDE_S, seed=seed)
    assert choice.all_cores
    assert serve(choice, 1000, NARROW_S, WIDE_S, seed=seed) >= 980


@pytest.mark.parametrize("seed", range(10))
def test_what_is_equally_quick_is_left_as_it_is(seed: int) -> None:
    for begins in (True, False):
        choice = SingleFrameChoice(all_cores=begins)
        serve(choice, 20_000, 0.030, 0.029, noise=0.15, seed=seed)
        assert choice.all_cores is begins


def test_a_machine_that_changes_for_good_changes_the_choice_once() -> None:
    choice = SingleFrameChoice(all_cores=True)
    serve(choice, 5000, NARROW_S, WIDE_S)
    # Another program takes the second core for good. Waiting for that core makes a frame slower than on one.
    serve(choice, LATE_EVERY * (TEST_RUNS + WINS) * 3, NARROW_S, 0.080)
    assert not choice.all_cores


def test_a_neighbour_that_passes_by_changes_nothing() -> None:
    choice = SingleFrameChoice(all_cores=True)
    serve(choice, 5000, NARROW_S, WIDE_S)
    for seed in range(10):
        serve(choice, LATE_EVERY, NARROW_S, 0.080, seed=seed)
        serve(choice, 5000, NARROW_S, WIDE_S, seed=seed)
    assert choice.all_cores


def test_trials_are_too_few_for_the_99th_percentile() -> None:
    choice = SingleFrameChoice(all_cores=True)
    serve(choice, 1000, NARROW_S, WIDE_S)
    assert 10_000 - serve(choice, 10_000, NARROW_S, WIDE_S) < 100
