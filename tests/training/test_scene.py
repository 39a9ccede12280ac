"""Scenes: the same number gives the same image, and the boxes are where a decoder finds the codes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import zxingcpp

from models.training.scene import Scene, draw_scene
from models.training.symbols import CLASSES


def test_a_number_always_gives_the_same_scene() -> None:
    first, again, other = draw_scene(12), draw_scene(12), draw_scene(13)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.boxes, again.boxes)
    assert not np.array_equal(first.image.shape, other.image.shape) or (first.image != other.image).any()


@pytest.mark.parametrize("kind", ["flush", "page", "photo", "empty", "texture"])
def test_boxes_lie_in_the_image(kind: str) -> None:
    counts = 0
    for seed in range(40):
        scene = draw_scene(seed, side=320, kind=kind)
        height, width = scene.image.shape[:2]
        assert scene.image.dtype == np.uint8
        assert max(height, width) <= 400
        assert scene.class_ids.shape == (len(scene.boxes),)
        assert ((scene.class_ids >= -1) & (scene.class_ids < len(CLASSES))).all()
        assert (scene.boxes[:, :2] >= 0).all()
        assert (scene.boxes[:, 2:] <= [width, height]).all()
        assert (scene.boxes[:, 2:] > scene.boxes[:, :2]).all()
        counts += int((scene.class_ids >= 0).sum())
    assert counts == 0 if kind in ("empty", "texture") else counts >= 35


def _extent(code: zxingcpp.Barcode) -> npt.NDArray[np.float64]:
    corners = code.position
    points = np.array(
        [
            (point.x, point.y)
            for point in (corners.top_left, corners.top_right, corners.bottom_right, corners.bottom_left)
        ]
    )
    return np.concatenate([points.min(0), points.max(0)])


def _agreement(scene: Scene) -> list[float]:
    """Return, for each two-dimensional code that the decoder reads, the best IoU with a box of its class."""
    found = []
    for code in zxingcpp.read_barcodes(scene.image):
        name = {"QR Code": "qr_code", "Data Matrix": "data_matrix", "Aztec": "aztec"}.get(str(code.symbology))
        if name is None:
            continue
        read = _extent(code)
        wanted = scene.boxes[np.isin(scene.class_ids, [CLASSES.index(name), -1])]
        near, far = np.maximum(wanted[:, :2], read[:2]), np.minimum(wanted[:, 2:], read[2:])
        common = np.maximum(far - near, 0).prod(1)
        areas = (wanted[:, 2:] - wanted[:, :2]).prod(1) + (read[2:] - read[:2]).prod()
        found.append(float((common / (areas - common)).max(initial=0.0)))
    return found


@pytest.mark.parametrize("kind", ["flush", "page", "photo"])
def test_boxes_are_where_a_decoder_finds_the_codes(kind: str) -> None:
    agreements = [value for seed in range(60) for value in _agreement(draw_scene(seed, kind=kind))]
    assert len(agreements) >= 10
    assert np.median(agreements) > 0.9
    assert np.mean(np.array(agreements) > 0.7) > 0.95
