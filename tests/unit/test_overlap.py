"""Tests intersection over union, and the matching of two sets of boxes by it."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inference.core.detections import Boxes
from inference.core.overlap import greedy_pairs, match, pairwise_iou, same_class_iou


def boxes(rows: list[Any]) -> Boxes:
    return np.array(rows, np.float32).reshape(-1, 6)


def box_rows() -> st.SearchStrategy[list[Any]]:
    side = st.floats(0, 50, width=32)
    return st.lists(
        st.tuples(side, side, side, side, st.floats(0, 1, width=32), st.integers(0, 2)).map(
            lambda row: (row[0], row[1], row[0] + row[2], row[1] + row[3], row[4], row[5])
        ),
        max_size=6,
    )


@given(box_rows(), box_rows())
def test_an_overlap_is_a_share_and_does_not_depend_on_the_order(one: list[Any], other: list[Any]) -> None:
    table = pairwise_iou(boxes(one), boxes(other))
    assert table.shape == (len(one), len(other))
    assert table.dtype == np.float32
    assert ((table >= 0) & (table <= 1 + 1e-5)).all()
    assert np.allclose(table, pairwise_iou(boxes(other), boxes(one)).T, atol=1e-6)
    assert (same_class_iou(boxes(one), boxes(other)) <= table).all()


def test_boxes_without_area_overlap_nothing() -> None:
    point = boxes([(5, 5, 5, 5, 0.9, 0)])
    assert pairwise_iou(point, point).tolist() == [[0.0]]


@given(box_rows(), box_rows())
def test_each_box_is_matched_once_and_no_free_pair_is_left(one: list[Any], other: list[Any]) -> None:
    pairs = match(boxes(one), boxes(other), 0.3)
    rows, columns = [row for row, _, _ in pairs], [column for _, column, _ in pairs]
    assert len(set(rows)) == len(rows)
    assert len(set(columns)) == len(columns)
    overlaps = [overlap for _, _, overlap in pairs]
    assert overlaps == sorted(overlaps, reverse=True)
    table = same_class_iou(boxes(one), boxes(other))
    free = np.delete(np.delete(table, rows, 0), columns, 1)
    assert not (free >= 0.3).any()


def test_of_equal_overlaps_the_upper_row_and_the_left_column_come_first() -> None:
    assert greedy_pairs(np.full((2, 3), 0.5), 0.5) == [(0, 0), (1, 1)]
