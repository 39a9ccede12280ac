"""Boxes are drawn on an image; the tests look for them in the decoded JPEG."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from inference.core.detections import NO_BOXES
from streamer.imaging.draw import annotate, box_colour, draw_boxes, label_rows


def drawn(
    height: int, width: int, *rows: tuple[float, ...], labels: tuple[str, ...] = ("cat", "dog")
) -> np.ndarray:
    boxes = np.array(rows, dtype=np.float32) if rows else NO_BOXES
    data = annotate(np.zeros((height, width, 3), np.uint8), boxes, labels)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image)


def test_a_box_is_drawn_where_it_is_in_its_box_colour() -> None:
    image = drawn(480, 640, (100, 150, 400, 350, 0.9, 1))
    for x, y in ((100, 250), (400, 250), (250, 350)):
        assert np.abs(image[y, x].astype(int) - box_colour(1)).max() < 60
    assert image[250, 250].max() < 10
    assert image[450, 600].max() < 10


def test_without_boxes_the_image_stays_as_it_is() -> None:
    assert drawn(48, 64).max() == 0


def test_the_label_stays_inside_the_image_at_its_corners() -> None:
    image = drawn(480, 640, (0, 0, 60, 60, 0.5, 0), (600, 440, 640, 480, 0.5, 1))
    assert image[:12, :40].max() > 100
    assert image[420:440, 560:].max() > 100


@pytest.mark.parametrize("size", [(1, 1), (8, 3000), (3000, 8)])
def test_the_oddest_images_can_be_drawn_on(size: tuple[int, int]) -> None:
    assert drawn(*size, (0, 0, size[1], size[0], 1.0, 7)).shape == (*size, 3)


def test_a_label_that_the_font_lacks_is_drawn_all_the_same() -> None:
    assert drawn(100, 200, (20, 40, 180, 90, 0.5, 0), labels=("猫" * 300,)).max() > 100


def test_neighbouring_classes_have_colours_far_apart() -> None:
    for number in range(100):
        distance = np.abs(np.subtract(box_colour(number), box_colour(number + 1)))
        assert distance.max() > 60


def test_a_tracked_box_keeps_the_colour_of_its_class() -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    boxes = label_rows([[100, 150, 400, 350, 0.9, 1, 7]], ("cat", "dog"))
    assert [(box.label, box.track_id) for box in boxes] == [("dog", 7)]
    draw_boxes(image, boxes)
    assert np.abs(image[250, 100].astype(int) - box_colour(1)).max() < 60


def test_the_text_of_a_code_is_drawn_beside_its_label() -> None:
    boxes = np.array([(20, 60, 300, 200, 0.9, 0), (20, 260, 300, 400, 0.9, 1)], np.float32)
    without, both = np.zeros((480, 900, 3), np.uint8), np.zeros((480, 900, 3), np.uint8)
    annotate(without, boxes, ("cat", "dog"))
    annotate(both, boxes, ("cat", "dog"), (None, "4006381333931"))
    changed = np.flatnonzero(np.any(without != both, axis=(1, 2)))
    # Only the strip above the second box is longer.
    assert 200 < changed.min() <= changed.max() <= 262
    assert label_rows(boxes.tolist(), ("cat", "dog"), ("x",))[1].text is None


def outline_shares(class_id: int, size: tuple[int, int] = (480, 640)) -> list[float]:
    """Return for each side of a drawn box which share of it has the colour of the class."""
    image = np.zeros((*size, 3), np.uint8)
    height, width = size
    left, top, right, bottom = width // 8, height // 4, width * 7 // 8, height * 7 // 8
    draw_boxes(image, label_rows([[left, top, right, bottom, 0.9, class_id]], ()))
    label = width // 4  # the label covers a part of the upper side
    sides = (image[top, left + label : right], image[bottom, left:right], image[top:bottom, right])
    return [float((side.max(axis=1) > 100).mean()) for side in (*sides, image[top:bottom, left])]


@pytest.mark.parametrize("size", [(480, 640), (1440, 1920)])
def test_classes_of_the_same_colour_differ_in_their_dashes(size: tuple[int, int]) -> None:
    assert box_colour(3) == box_colour(11) == box_colour(19) == box_colour(27)
    for class_id, (dash, gap) in ((11, (10, 5)), (19, (3, 4))):
        shares = outline_shares(class_id, size)
        assert shares == pytest.approx([dash / (dash + gap)] * 4, abs=0.15), (class_id, shares)
    for solid in (3, 27):
        assert min(outline_shares(solid, size)) == 1


@pytest.mark.parametrize("size", [(1, 1), (8, 3000), (3000, 8)])
@pytest.mark.parametrize("box", [(0, 0, 0, 0), (-1e9, -1e9, 1e9, 1e9), (5, 5, 2, 1)])
def test_dashed_boxes_of_any_size_can_be_drawn(size: tuple[int, int], box: tuple[float, ...]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    draw_boxes(image, label_rows([[*box, 0.9, 8], [*box, 0.9, 16]], ()))
