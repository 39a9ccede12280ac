"""The ranges of activations are those with the least rounding error."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.model_tools.quantiser import ActivationHistograms, Range, rounded, scale_of


def ranges(values: np.ndarray[tuple[int], np.dtype[np.float32]], power: float) -> Range:
    activations = ActivationHistograms(["x"])
    activations.widen({"x": values})
    activations.count({"x": values})
    return activations.ranges(power)["x"]


def test_the_full_range_contains_all_values_and_zero() -> None:
    assert ranges(np.array([2, 3, 5], np.float32), math.inf) == (0, 5)
    assert ranges(np.array([-2, -1], np.float32), math.inf) == (-2, 0)
    assert ranges(np.zeros(5, np.float32), 2.0) == (0, 0)


def test_a_lower_power_clips_more_outliers() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate((random.normal(0, 1, 100_000), [100.0, -60.0])).astype(np.float32)
    least_squares, cubes, full = (ranges(values, power) for power in (2.0, 3.0, math.inf))
    assert full == (-60, 100)
    assert least_squares[1] < cubes[1] <= full[1]
    assert least_squares[0] > full[0]


@pytest.mark.parametrize("power", [2.0, 3.0])
def test_no_other_range_has_a_smaller_error(power: float) -> None:
    random = np.random.default_rng(1)
    values = random.standard_t(2.5, 50_000).astype(np.float32)
    low, high = ranges(values, math.inf)

    def error(part: Range) -> float:
        return float(np.mean(np.abs(rounded(values, part) - values) ** power))

    others = [
        (low * below, high * above) for below in (1, 0.8, 0.5, 0.3, 0.1) for above in (1, 0.8, 0.5, 0.3, 0.1)
    ]
    chosen = error(ranges(values, power))
    assert chosen <= error((low, high))
    assert chosen <= min(map(error, others)) * 1.02  # the bins of the histogram round a little


def test_all_images_have_the_same_weight_and_empty_tensors_have_none() -> None:
    activations = ActivationHistograms(["x"])
    for values in (np.ones(10, np.float32), np.full(1_000_000, 2.0, np.float32), np.empty(0, np.float32)):
        activations.widen({"x": values})
    for values in (np.ones(10, np.float32), np.full(1_000_000, 2.0, np.float32), np.empty(0, np.float32)):
        activations.count({"x": values})
    assert activations._shares["x"].sum() == pytest.approx(2)
    assert activations.ranges(2.0)["x"] == (0, 2)


@given(
    st.floats(-1000, 0),
    st.floats(0, 1000),
    st.lists(st.floats(-2000, 2000, width=32), min_size=1, max_size=30),
)
def test_rounding_errs_by_half_a_step_at_most_or_clips(low: float, high: float, numbers: list[float]) -> None:
    values = np.array(numbers, np.float32)
    step, zero = scale_of((low, high))
    assert 0 <= zero <= 255
    off = np.abs(rounded(values, (low, high)) - np.clip(values, (0 - zero) * step, (255 - zero) * step))
    assert (off <= step * 0.501 + 1e-3).all()
    assert rounded(np.zeros(1, np.float32), (low, high))[0] == 0  # padding stays exactly zero
