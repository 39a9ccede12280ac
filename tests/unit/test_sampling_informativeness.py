"""Uncertainty, flicker, disagreement and class balance are computed from the boxes of frames."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.overlap import match, pairwise_iou, same_class_iou
from streamer.sampling.informativeness import (
    MAX_WEIGHT,
    MIN_WEIGHT,
    ClassBalance,
    disagreement,
    flicker,
    score_uncertainty,
    uncertainty,
)
from tests.helpers.candidates import boxes


@pytest.mark.parametrize(
    ("threshold", "low", "high"), [(0.5, 0.35, 0.65), (0.25, 0.175, 0.475)], ids=["half", "quarter"]
)
def test_seven_tenths_means_a_score_near_the_threshold(threshold: float, low: float, high: float) -> None:
    scores = np.array([low - 0.01, low + 0.001, threshold, high - 0.001, high + 0.01], np.float32)
    assert (score_uncertainty(scores, threshold) >= 0.7).tolist() == [False, True, True, True, False]


@given(st.floats(0, 1, width=32), st.floats(0.0009765625, 0.9990234375, width=32))
def test_uncertainty_is_a_share_and_greatest_at_the_threshold(score: float, threshold: float) -> None:
    (value,) = score_uncertainty(np.array([score], np.float32), threshold)
    assert 0 <= value <= 1
    assert score_uncertainty(np.array([threshold], np.float32), threshold)[0] >= value


def test_the_frame_takes_the_greatest_uncertainty_and_is_ranked_by_three() -> None:
    value, rank = uncertainty(boxes(0.9, 0.75, 0.5, 0.25), 0.5)
    assert value == pytest.approx(1.0)
    assert rank == pytest.approx((1.0 + 0.5 + 0.5) / 3)
    assert uncertainty(boxes(), 0.5) == (0.0, 0.0)


def test_boxes_of_different_classes_do_not_overlap() -> None:
    same, other = boxes(0.9), boxes(0.9, label=1)
    assert same_class_iou(same, same).tolist() == [[1.0]]
    assert same_class_iou(same, other).tolist() == [[0.0]]
    assert pairwise_iou(same, other).tolist() == [[1.0]]
    half = same.copy()
    half[0, 2] -= 10  # half of its width
    assert pairwise_iou(same, half)[0, 0] == pytest.approx(0.5)


def test_each_box_is_matched_once_the_closest_pair_first() -> None:
    one = boxes(0.9)
    shifted = np.concatenate([one, one])
    shifted[0, [0, 2]] += 5
    assert [(row, column) for row, column, _ in match(one, shifted, 0.3)] == [(0, 1)]
    assert match(one, boxes(), 0.3) == []


@pytest.mark.parametrize(
    ("before", "middle", "after", "expected"),
    [
        (boxes(0.9), boxes(0.9), boxes(0.9), 0.0),
        (boxes(), boxes(0.9), boxes(), 1.0),
        (boxes(0.9), boxes(), boxes(0.9), 1.0),
        (boxes(0.9), boxes(), boxes(), 0.0),
        (boxes(0.9, 0.8), boxes(0.9), boxes(0.9, 0.8), 0.5),
        (boxes(), boxes(), boxes(), 0.0),
    ],
    ids=["steady", "blip", "gap", "left", "one of two", "empty"],
)
def test_flicker_counts_blips_and_gaps_among_the_objects(
    before: np.ndarray, middle: np.ndarray, after: np.ndarray, expected: float
) -> None:
    assert flicker(before, middle, after) == expected


def test_two_models_that_see_the_same_agree_and_what_one_alone_sees_counts_by_its_score() -> None:
    both = boxes(0.9, 0.8)
    assert disagreement(both, both) == pytest.approx(0, abs=1e-6)
    assert disagreement(both, boxes()) == 1
    assert disagreement(boxes(), boxes()) == 0
    assert disagreement(boxes(0.9), boxes(0.9, label=1)) == 1
    # One of the three boxes has no partner; its score is 0.8, and all scores add up to 2.6.
    assert disagreement(both, boxes(0.9)) == pytest.approx(0.8 / 2.6, abs=1e-5)
    assert disagreement(boxes(0.9), both) == disagreement(both, boxes(0.9))


def test_a_rare_class_weighs_more_than_a_common_one() -> None:
    balance = ClassBalance()
    assert balance.weight([0]) == 1.0
    for _ in range(50):
        balance.count([0])
    balance.count([1])
    assert balance.weight([0]) < 1 < balance.weight([0, 1])
    assert balance.weight([0]) == pytest.approx(0.707, abs=0.01)
    assert balance.weight([2]) == MAX_WEIGHT
    assert balance.weight([]) == 1.0
    assert MIN_WEIGHT < 1 < MAX_WEIGHT
