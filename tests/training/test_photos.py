"""Photographs: errors name the fault, and linear codes get their height."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from models.training.photos import as_sample, grown, read_photos
from tests.conftest import shared

DOCUMENT: dict[str, Any] = {
    "categories": [{"id": 5, "name": "barcode"}],
    "images": [{"id": 1, "file_name": "ean13-1_1.jpg"}, {"id": 2, "file_name": "ean13-3_2.jpg"}],
    "annotations": [{"image_id": 1, "category_id": 5, "bbox": [10, 20, 30, 40], "symbology": "EAN-13"}],
}


def write(folder: Path, document: Any) -> Path:
    (folder / "annotations.json").write_text(document if isinstance(document, str) else json.dumps(document))
    return folder


def test_boxes_become_corners(tmp_path: Path) -> None:
    first, second = read_photos(write(tmp_path, DOCUMENT))
    assert first.boxes.tolist() == [[10, 20, 40, 60]]
    assert (first.class_ids.tolist(), first.symbologies) == ([0], ("EAN-13",))
    assert second.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ("{", "annotations.json"),
        ({"images": []}, "categories"),
        (DOCUMENT | {"categories": [{"id": 5, "name": "face"}]}, "`face` is none of barcode, qr_code"),
        (DOCUMENT | {"annotations": [{"image_id": 9, "category_id": 5, "bbox": [0, 0, 1, 1]}]}, "9"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, document: Any, named: str) -> None:
    with pytest.raises(ValueError, match=r"annotations\.json") as caught:
        read_photos(write(tmp_path, document))
    assert named in str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nosuch"):
        read_photos(tmp_path / "nosuch")


@pytest.mark.parametrize("upright", [True, False])
@pytest.mark.parametrize("lean", [0.0, 0.06])
def test_a_few_rows_of_bars_grow_to_the_whole_code(upright: bool, lean: float) -> None:
    rng = np.random.default_rng(1)
    row = np.repeat(rng.integers(0, 2, 60) * 200 + 20, 4).astype(np.uint8)
    image = rng.integers(170, 200, (200, 320), np.uint8)
    for y in range(50, 150):
        left = 40 + int((y - 100) * lean)
        image[y, left : left + 240] = row
    box = np.array([40, 95, 280, 100], np.float32)
    if not upright:
        image, box = image.T.copy(), box[[1, 0, 3, 2]]
    found = grown(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), box)
    x1, y1, x2, y2 = found if upright else found[[1, 0, 3, 2]]
    assert (x1, x2) == (40, 280)
    assert abs(y1 - 50) <= 2
    assert abs(y2 - 150) <= 2


def test_real_photographs_give_sound_samples() -> None:
    photos = read_photos(shared("data/codes"))
    for photo in photos[::25]:
        sample = as_sample(photo)
        height, width = sample.image().shape[:2]
        assert max(height, width) <= 832
        assert (sample.boxes[:, :2] >= -1).all()
        assert (sample.boxes[:, 2:] <= [width + 1, height + 1]).all()
