"""Tests how the boxes of two models are matched and counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.core.detections import NO_BOXES, Boxes
from streamer.model_tools.comparison import Agreement


def boxes(*rows: tuple[float, float, float, float, float, int]) -> Boxes:
    return np.array(rows, np.float32).reshape(-1, 6)


ONE = (0.0, 0.0, 10.0, 10.0, 0.9, 0)


def agreement(reference: Boxes, found: Boxes) -> Agreement:
    result = Agreement()
    result.add(reference, found)
    return result


def test_equal_boxes_agree_in_everything() -> None:
    result = agreement(boxes(ONE), boxes(ONE))
    assert (result.recall, result.precision, result.mean_iou, result.mean_score_change) == (1, 1, 1, 0)


def test_a_missing_box_lowers_recall_and_an_extra_one_precision() -> None:
    two = boxes(ONE, (50, 50, 60, 60, 0.5, 0))
    missing, extra = agreement(two, boxes(ONE)), agreement(boxes(ONE), two)
    assert (missing.recall, missing.precision, missing.worst) == (0.5, 1, 0.5)
    assert (extra.recall, extra.precision, extra.worst) == (1, 0.5, 0.5)


def test_another_class_or_too_little_overlap_is_no_match() -> None:
    assert agreement(boxes(ONE), boxes((*ONE[:5], 1))).recall == 0
    assert agreement(boxes(ONE), boxes((0, 0, 10, 4.9, 0.9, 0))).recall == 0
    half = agreement(boxes(ONE), boxes((0, 0, 10, 5.1, 0.7, 0)))
    assert half.recall == 1
    assert half.mean_iou == pytest.approx(0.51, abs=1e-3)
    assert half.score_changes == [pytest.approx(-0.2)]
    assert half.largest_score_change == pytest.approx(0.2)


def test_a_found_box_matches_one_reference_box_only() -> None:
    twice = boxes(ONE, (0, 0, 10, 9, 0.6, 0))
    result = agreement(twice, boxes(ONE))
    assert (result.recall, result.precision) == (0.5, 1)


def test_no_boxes_on_either_side_is_full_agreement() -> None:
    result = agreement(NO_BOXES, NO_BOXES)
    assert (result.images, result.worst, result.mean_iou, result.largest_score_change) == (1, 1, 1, 0)
    result.add(boxes(ONE), NO_BOXES)
    result.add(NO_BOXES, boxes(ONE))
    assert (result.images, result.recall, result.precision) == (3, 0, 0)


def box_rows() -> st.SearchStrategy[list[Any]]:
    side = st.floats(1, 50, width=32)
    return st.lists(
        st.tuples(side, side, side, side, st.floats(0, 1, width=32), st.integers(0, 2)).map(
            lambda row: (row[0], row[1], row[0] + row[2], row[1] + row[3], row[4], row[5])
        ),
        max_size=6,
    )


@given(box_rows(), box_rows())
def test_recall_and_precision_are_shares_and_counts_swap_with_the_sides(
    one: list[Any], other: list[Any]
) -> None:
    forth, back = agreement(boxes(*one), boxes(*other)), agreement(boxes(*other), boxes(*one))
    assert 0 <= forth.worst <= 1
    assert len(forth.ious) <= min(len(one), len(other))
    assert (forth.reference, forth.found) == (back.found, back.reference)
