"""Tests suppression against its definition, written in plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.core.detection_params import DetectionParams
from inference.core.detections import NO_BOXES, Boxes
from inference.postprocess.nms import best, suppress


def overlap(a: Boxes, b: Boxes) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, float(width)) * max(0.0, float(height))
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (a, b)]
    return shared / (sum(areas) - shared)


def by_definition(boxes: Boxes, threshold: float, *, agnostic: bool = False) -> list[list[float]]:
    kept: list[Boxes] = []
    for box in sorted(boxes, key=lambda row: -row[4]):
        if all((other[5] != box[5] and not agnostic) or overlap(other, box) <= threshold for other in kept):
            kept.append(box)
    return [box.tolist() for box in kept]


def random_boxes(seed: int, count: int, low: float = -40.0) -> Boxes:
    random = np.random.default_rng(seed)
    boxes = np.empty((count, 6), np.float32)
    boxes[:, :2] = random.uniform(low, 60, (count, 2))
    boxes[:, 2:4] = boxes[:, :2] + random.uniform(1, 60, (count, 2))
    boxes[:, 4] = random.permutation(count) / count  # no ties, so that the order is defined
    boxes[:, 5] = random.integers(0, 3, count)
    return boxes


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(0, 40), st.sampled_from([0.1, 0.45, 0.7, 0.95]), st.booleans())
def test_it_keeps_exactly_what_the_definition_keeps(
    seed: int, count: int, threshold: float, agnostic: bool
) -> None:
    boxes = random_boxes(seed, count)
    kept = suppress(boxes, DetectionParams(iou_threshold=threshold, agnostic_nms=agnostic))
    assert kept.tolist() == by_definition(boxes, threshold, agnostic=agnostic)


def test_classes_never_suppress_each_other_even_left_of_the_origin() -> None:
    boxes = np.array([[-100, -100, 20, 20, 0.9, 1], [-90, -90, 30, 30, 0.8, 0]], np.float32)
    assert len(suppress(boxes, DetectionParams(iou_threshold=0.1))) == 2


def test_fractions_of_a_pixel_count() -> None:
    """The IoU of boxes half a pixel wide is exact, not computed from coordinates in whole pixels."""
    boxes = np.array([[0, 0, 0.5, 0.5, 0.9, 0], [0.3, 0, 0.8, 0.5, 0.8, 0]], np.float32)
    assert len(suppress(boxes, DetectionParams(iou_threshold=0.3))) == 2
    assert len(suppress(boxes, DetectionParams(iou_threshold=0.2))) == 1


def test_the_result_is_sorted_and_cut_to_the_maximum() -> None:
    boxes = random_boxes(5, 30)
    kept = suppress(boxes, DetectionParams(iou_threshold=1.0, max_detections=7))
    assert kept[:, 4].tolist() == sorted(boxes[:, 4].tolist(), reverse=True)[:7]


@pytest.mark.parametrize("count", [0, 1])
def test_one_box_or_none_passes(count: int) -> None:
    boxes = random_boxes(1, 1)[:count]
    assert suppress(boxes, DetectionParams()).tolist() == boxes.tolist()


def test_best_sorts_without_suppressing() -> None:
    boxes = np.repeat(random_boxes(3, 1), 3, axis=0)
    boxes[:, 4] = 0.2, 0.9, 0.5
    assert best(boxes, DetectionParams(max_detections=2))[:, 4] == pytest.approx([0.9, 0.5])
    assert len(best(NO_BOXES, DetectionParams())) == 0
