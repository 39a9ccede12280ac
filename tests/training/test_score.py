"""Scoring: linear codes match by their middle, others by overlap, and each code counts as found once."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from models.training.photos import Photo
from models.training.score import score_photos
from models.training.symbols import CLASSES


def photo(*codes: tuple[str, tuple[float, float, float, float]]) -> Photo:
    class_ids = np.array([CLASSES.index(name) for name, _ in codes], np.int64)
    boxes = np.array([box for _, box in codes], np.float32).reshape(-1, 4)
    return Photo(Path("ean13-1_7.jpg"), ("",) * len(codes), class_ids, boxes)


def boxes(
    *rows: tuple[str, tuple[float, float, float, float]],
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array([[*box, 0.9, CLASSES.index(name)] for name, box in rows], np.float32).reshape(-1, 6)


def test_a_linear_code_is_found_by_its_middle_whatever_the_height() -> None:
    code = photo(("barcode", (0, 40, 100, 44)))
    score = score_photos([code], [boxes(("barcode", (5, 0, 95, 80)))])
    assert (score.recall("barcode"), score.precision) == (1.0, 1.0)
    found = [boxes(("barcode", (5, 0, 95, 80))), boxes(("barcode", (60, 0, 100, 80)))]
    score = score_photos([code, code], found)
    assert (score.recall("barcode"), score.precision) == (0.5, 0.5)


def test_other_codes_need_half_an_overlap_and_the_right_class() -> None:
    wanted = photo(("qr_code", (0, 0, 100, 100)))
    for found, recall in (
        (("qr_code", (0, 0, 100, 51)), 1),
        (("qr_code", (0, 0, 100, 49)), 0),
        (("aztec", (0, 0, 100, 100)), 0),
    ):
        score = score_photos([wanted], [boxes(found)])
        assert (score.recall("qr_code"), score.precision, score.codes("qr_code")) == (recall, recall, 1)


def test_two_boxes_on_one_code_are_one_hit_and_one_false_box() -> None:
    found = boxes(("aztec", (0, 0, 10, 10)), ("aztec", (0, 0, 10, 9)))
    score = score_photos([photo(("aztec", (0, 0, 10, 10)))], [found])
    assert (score.recall("aztec"), score.precision, score.wrong) == (1, 0.5, ["ean13-1_7.jpg"])


def test_boxes_on_photos_without_codes_are_counted_apart() -> None:
    score = score_photos([photo(), photo()], [boxes(("barcode", (0, 0, 9, 9))), boxes()])
    assert score.false_per_empty == 0.5
    assert math.isnan(score.precision)
    assert math.isnan(score.recall("barcode"))
