"""Tests where the letterbox places an image, and that boxes are mapped back to image coordinates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.models.model import Family, ModelInfo, Placement
from inference.preprocess.letterbox import Letterbox


def model(placement: Placement, width: int = 64, height: int = 64) -> ModelInfo:
    return ModelInfo(
        name="test",
        sha256="",
        family=Family.YOLO,
        labels=("a",),
        input_width=width,
        input_height=height,
        placement=placement,
        pad_value=114,
    )


@pytest.mark.parametrize(
    ("placement", "place"),
    [
        (Placement.CENTRED, (64, 32, 0, 16)),
        (Placement.TOP_LEFT, (64, 32, 0, 0)),
        (Placement.STRETCH, (64, 64, 0, 0)),
    ],
)
def test_each_placement_puts_a_wide_image_where_its_training_did(
    placement: Placement, place: tuple[int, int, int, int]
) -> None:
    box = Letterbox.fit(200, 100, model(placement))
    assert (box.resized_width, box.resized_height, box.left, box.top) == place


def test_an_odd_border_has_its_smaller_half_first() -> None:
    box = Letterbox.fit(64, 59, model(Placement.CENTRED))
    assert (box.top, 64 - box.top - box.resized_height) == (2, 3)


def test_top_left_cuts_off_where_centred_rounds() -> None:
    """768x432 fitted into 416 has 233.99999999999997 rows. YOLOX truncates to 233; rounding gives 234."""
    assert Letterbox.fit(768, 432, model(Placement.TOP_LEFT, 416, 416)).resized_height == 233
    assert Letterbox.fit(768, 432, model(Placement.CENTRED, 416, 416)).resized_height == 234


def test_write_fills_image_and_border_in_place() -> None:
    box = Letterbox.fit(32, 16, model(Placement.CENTRED))
    slot = np.zeros((64, 64, 3), np.uint8)
    box.write(np.full((16, 32, 3), 200, np.uint8), slot)
    assert (slot[16:48] == 200).all()
    assert (slot[:16] == 114).all()
    assert (slot[48:] == 114).all()


def test_write_leaves_no_trace_of_the_slot_s_former_frame() -> None:
    slot = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    Letterbox.fit(20, 64, model(Placement.CENTRED)).write(np.full((64, 20, 3), 7, np.uint8), slot)
    assert set(np.unique(slot)) == {7, 114}


def test_write_takes_a_reduced_scale_decode_of_the_source() -> None:
    """The size of the source sets the place; the image may have any size with the same aspect ratio."""
    box = Letterbox.fit(400, 200, model(Placement.TOP_LEFT))
    slot = np.zeros((64, 64, 3), np.uint8)
    box.write(np.full((50, 100, 3), 9, np.uint8), slot)
    assert (slot[:32] == 9).all()
    assert (slot[32:] == 114).all()


def test_an_image_of_the_input_s_size_is_copied_exactly() -> None:
    image = np.random.default_rng(2).integers(0, 255, (64, 64, 3), np.uint8)
    slot = np.zeros_like(image)
    Letterbox.fit(64, 64, model(Placement.CENTRED)).write(image, slot)
    assert np.array_equal(slot, image)


@pytest.mark.parametrize(
    ("image", "slot"),
    [
        (np.zeros((8, 8), np.uint8), np.zeros((64, 64, 3), np.uint8)),
        (np.zeros((8, 8, 4), np.uint8), np.zeros((64, 64, 3), np.uint8)),
        (np.zeros((8, 8, 3), np.float32), np.zeros((64, 64, 3), np.uint8)),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((32, 64, 3), np.uint8)),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((64, 64, 3), np.float32)),
    ],
)
def test_wrong_shapes_are_refused_before_anything_is_written(image: np.ndarray, slot: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        Letterbox.fit(8, 8, model(Placement.CENTRED)).write(image, slot)


def test_an_image_without_area_is_refused() -> None:
    with pytest.raises(ValueError, match="0x5"):
        Letterbox.fit(0, 5, model(Placement.CENTRED))


sides = st.integers(1, 9000)


@given(sides, sides, st.sampled_from(Placement), st.integers(32, 700), st.integers(32, 700))
def test_every_image_lies_inside_the_input(
    width: int, height: int, placement: Placement, input_width: int, input_height: int
) -> None:
    box = Letterbox.fit(width, height, model(placement, input_width, input_height))
    assert box.resized_width >= 1
    assert box.resized_height >= 1
    assert box.left >= 0
    assert box.top >= 0
    assert box.left + box.resized_width <= input_width
    assert box.top + box.resized_height <= input_height


@given(st.integers(16, 4000), st.integers(16, 4000), st.sampled_from(Placement), st.data())
def test_a_box_mapped_into_the_input_comes_back(
    width: int, height: int, placement: Placement, data: st.DataObject
) -> None:
    box = Letterbox.fit(width, height, model(placement, 320, 256))
    x1 = data.draw(st.floats(0, width * 0.8))
    y1 = data.draw(st.floats(0, height * 0.8))
    x2 = data.draw(st.floats(x1 + width * 0.1, width))
    y2 = data.draw(st.floats(y1 + height * 0.1, height))
    scale_x, scale_y = box.resized_width / width, box.resized_height / height
    inside = [
        x1 * scale_x + box.left,
        y1 * scale_y + box.top,
        x2 * scale_x + box.left,
        y2 * scale_y + box.top,
    ]
    back = box.to_source(np.array([[*inside, 0.5, 3]], np.float32))
    assert back[0, :4] == pytest.approx([x1, y1, x2, y2], abs=max(width, height) / 1000)
    assert back[0, 4:].tolist() == [0.5, 3]


def test_boxes_are_clipped_and_those_in_the_border_removed() -> None:
    box = Letterbox.fit(32, 16, model(Placement.CENTRED))
    found = box.to_source(
        np.array([[-10, 0, 70, 64, 0.9, 1], [4, 2, 20, 15, 0.8, 2], [10, 10, 10, 30, 0.7, 3]], np.float32)
    )
    assert found.tolist() == [[0, 0, 32, 16, pytest.approx(0.9), 1]]


def test_no_boxes_stay_no_boxes() -> None:
    assert Letterbox.fit(5, 5, model(Placement.CENTRED)).to_source(np.empty((0, 6), np.float32)).shape == (
        0,
        6,
    )
