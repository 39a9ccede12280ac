"""Pictures without a code: each kind is drawn, the same number gives the same picture, numbers differ."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import zxingcpp

from models.training.empty import drawn, files
from models.training.negatives import KINDS, draw_negative
from models.training.scene import draw_scene
from models.training.video import filmed


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_a_kind_are_repeatable_different_and_without_a_code(kind: str) -> None:
    first, again = (draw_negative(np.random.default_rng(3), 180, 240, kind) for _ in range(2))
    assert np.array_equal(first, again)
    images = [draw_negative(np.random.default_rng(seed), 180, 240, kind) for seed in range(5)]
    assert {image.shape for image in images} == {(180, 240, 3)}
    for one, other in itertools.combinations(images, 2):
        assert np.abs(one.astype(int) - other.astype(int)).mean() > 5
    assert not any(zxingcpp.read_barcodes(image) for image in images)


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(KeyError):
        draw_negative(np.random.default_rng(0), 90, 120, "cat")


def test_scenes_of_hard_pictures_have_no_codes_and_those_among_them_have() -> None:
    hard = [draw_scene(seed, side=256, kind="hard") for seed in range(4)]
    assert not any(len(scene.boxes) for scene in hard)
    among = [draw_scene(seed, side=256, kind="among") for seed in range(8)]
    assert sum(len(scene.boxes) for scene in among) >= 6


def test_code_numbers_follow_the_rows_that_a_rolling_shutter_moves() -> None:
    moved = 0
    for seed in range(40):
        image = np.zeros((120, 160, 3), np.uint8)
        ids = np.zeros((120, 160), np.uint8)
        image[40:80, 60:100], ids[40:80, 60:100] = 255, 1
        frame, after = filmed(np.random.default_rng(seed), image, ids)
        if not after.any():
            continue
        moved += not np.array_equal(after, ids)
        light = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).astype(float)
        assert light[after > 0].mean() > light[after == 0].mean()
    assert moved >= 5


def test_evaluation_draws_other_pictures_than_training_and_names_a_file_that_is_no_image(
    tmp_path: Path,
) -> None:
    first, second = drawn("logo", 2)
    assert not np.array_equal(first, second)
    (tmp_path / "a.png").write_bytes(b"none")
    (found,) = files(tmp_path)
    with pytest.raises(ValueError, match=r"a\.png: not an image"):
        found.image()
