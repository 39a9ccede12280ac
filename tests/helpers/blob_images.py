"""Writes images like those on which the blob model of `model_factory` detects something."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def write_blob_images(folder: Path) -> Path:
    """Write 20 images in three sizes, with up to three bright cells each, to a new folder; return it."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(20):
        image = random.integers(0, 120, (64, 64, 3)).astype(np.uint8)
        for column, row in random.integers(0, 8, (3, 2)):
            image[row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = random.integers(200, 255)
        scale = 1 + number % 3
        assert cv2.imwrite(
            str(folder / f"{number}.png"), np.kron(image, np.ones((scale, scale, 1), np.uint8))
        )
    return folder
