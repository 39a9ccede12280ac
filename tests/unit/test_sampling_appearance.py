"""Different objects before one background are told apart; noise, light and place change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from streamer.sampling.appearance import Appearance, decoded_size, describe, subjects
from streamer.sampling.appearance_memory import RADIUS, AppearanceMemories, AppearanceMemory
from streamer.sampling.crop_distance import object_distances
from streamer.sampling.scene_noise import SceneNoise
from tests.helpers.candidates import boxes, look

Image = npt.NDArray[np.uint8]
WIDTH, HEIGHT, SIDE = 320, 240, 24
#: The noise of a stream of which nothing is known.
QUIET = SceneNoise().of(look(0).frame)
#: Frames with the boxes of their objects.
Frames = Iterator[tuple[Image, npt.NDArray[np.float32]]]


def survivors(frames: Frames) -> int:
    """Return how many frames are new beside those before them."""
    memories, kept = AppearanceMemories(), 0
    for image, found in frames:
        shown = describe(image, found, WIDTH)
        if memories.novelty("s", shown) > RADIUS:
            memories.add("s", shown)
            kept += 1
    return kept


def as_jpeg(pixels: npt.NDArray[Any], quality: int = 90) -> Image:
    data = cv2.imencode(
        ".jpg", np.clip(pixels, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )[1]
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image, np.uint8)


def background(name: str, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    plain: npt.NDArray[np.float32] = np.full((HEIGHT, WIDTH, 3), (80, 85, 78), np.float32)
    if name == "moving belt":
        texture = cv2.GaussianBlur(np.random.default_rng(5).normal(0, 40, (HEIGHT, WIDTH)), (0, 0), 1.5)
        plain += np.roll(texture, int(rng.integers(WIDTH)), 1)[..., None]
    elif name == "leaves":
        plain += cv2.GaussianBlur(rng.normal(0, 160, (HEIGHT, WIDTH, 3)), (0, 0), 4)
    return plain


def polygon(number: int) -> tuple[npt.NDArray[np.float32], tuple[float, ...]]:
    """Return the mask of an object and its colour."""
    rng = np.random.default_rng(1000 + number)
    corners = int(rng.integers(3, 9))
    angles, radii = np.sort(rng.uniform(0, 2 * np.pi, corners)), rng.uniform(0.35, 0.5, corners) * 8 * SIDE
    points = np.stack([4 * SIDE + radii * np.cos(angles), 4 * SIDE + radii * np.sin(angles)], 1).astype(
        np.int32
    )
    mask = np.zeros((8 * SIDE, 8 * SIDE), np.uint8)
    cv2.fillPoly(mask, [points], 255)
    small = cv2.resize(mask, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return (small / np.float32(255))[..., None], tuple(rng.uniform(20, 235, 3))


def belt(count: int, where: str, noise: float, *, distinct: bool, lit: bool = False) -> Frames:
    """Yield frames with one small object each, at another place, whose box is a little off."""
    rng = np.random.default_rng(3)
    for index in range(count):
        mask, colour = polygon(index if distinct else 7)
        pixels = background(where, rng)
        x, y = int(rng.integers(10, WIDTH - 40)), int(rng.integers(10, HEIGHT - 40))
        part = pixels[y : y + SIDE, x : x + SIDE]
        part[:] = part * (1 - mask) + np.array(colour, np.float32) * mask
        shown = pixels * (rng.uniform(0.65, 1.4) if lit else 1) + rng.normal(0, noise, pixels.shape)
        box = np.array([x, y, x + SIDE, y + SIDE], np.float32) + rng.normal(0, 0.04 * SIDE, 4)
        yield as_jpeg(shown), np.array([[*box, 0.5, 0]], np.float32)


def wall(count: int, level: float, noise: float, quality: int, false_boxes: int, *, lit: bool) -> Frames:
    rng = np.random.default_rng(4)
    for _ in range(count):
        pixels = np.full((HEIGHT, WIDTH, 3), level) * (rng.uniform(0.6, 1.5) if lit else 1)
        rows = []
        for _ in range(false_boxes):
            x, y, side = rng.integers(0, WIDTH - 60), rng.integers(0, HEIGHT - 60), rng.integers(8, 60)
            rows.append([x, y, x + side, y + side * rng.uniform(0.5, 1), 0.3, 0])
        yield (
            as_jpeg(pixels + rng.normal(0, noise, pixels.shape), quality),
            np.array(rows, np.float32).reshape(-1, 6),
        )


@pytest.mark.parametrize(("where", "noise"), [("plain", 4), ("plain", 15), ("moving belt", 4), ("leaves", 4)])
def test_most_of_60_small_objects_are_new(where: str, noise: float) -> None:
    assert survivors(belt(60, where, noise, distinct=True)) >= 50


@pytest.mark.parametrize("lit", [False, True])
@pytest.mark.parametrize("where", ["plain", "moving belt"])
def test_one_object_stays_the_same_at_other_places_and_in_other_light(where: str, lit: bool) -> None:
    assert survivors(belt(40, where, 4, distinct=False, lit=lit)) <= 5


@pytest.mark.parametrize(
    ("level", "noise", "quality", "false_boxes"),
    [(20, 8, 90, 0), (20, 8, 90, 2), (12, 15, 70, 2), (130, 5, 95, 1), (90, 15, 50, 2)],
)
@pytest.mark.parametrize("lit", [False, True])
def test_an_empty_noisy_wall_is_new_once(
    level: float, noise: float, quality: int, false_boxes: int, lit: bool
) -> None:
    assert 1 <= survivors(wall(40, level, noise, quality, false_boxes, lit=lit)) <= 3


def test_the_most_uncertain_objects_describe_a_frame_and_missed_ones_where_they_were() -> None:
    found = boxes(0.9, 0.5, 0.6)
    assert subjects(found, None, 0.5)[:, 4].tolist() == pytest.approx([0.5, 0.6, 0.9])
    assert len(subjects(boxes(*[0.5] * 20), None, 0.5)) == 8
    assert len(subjects(boxes(), boxes(0.7), 0.5)) == 1
    assert len(subjects(boxes(), None, 0.5)) == 0
    tiny = np.array([[5, 5, 7, 30, 0.5, 0]], np.float32)
    assert len(subjects(tiny, None, 0.5)) == 0


def test_images_are_decoded_as_large_as_their_smallest_object_needs() -> None:
    assert decoded_size(boxes(), 1920, 1080) == (320, 180)
    assert decoded_size(np.array([[0, 0, 48, 90, 0.5, 0]], np.float32), 1920, 1080) == (960, 540)
    assert decoded_size(np.array([[0, 0, 9, 9, 0.5, 0]], np.float32), 1920, 1080) == (1920, 1080)


def test_boxes_at_and_beyond_the_edges_and_tiny_images_are_described() -> None:
    rng = np.random.default_rng(1)
    for height, width in ((1, 1), (7, 200), (64, 64)):
        image = rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
        found = np.array(
            [[-50, -50, width + 50, 20, 0.5, 0], [width - 1, 0, width + 9, 9, 0.5, 0]], np.float32
        )
        shown: Appearance = describe(image, found, width)
        for one in (*shown.objects, shown.frame):
            assert np.isfinite(one.light).all()
            assert np.isfinite(one.colour).all()
            assert np.isfinite([one.ground, one.noise, one.colour_noise, one.cell_px]).all()


def test_a_memory_is_bounded_forgets_the_oldest_and_survives_a_restart() -> None:
    memory = AppearanceMemory(object_distances, capacity=20)
    for number in range(30):
        memory.add(look(number).frame, QUIET)
        memory.add(look(number).frame, QUIET)
    known = [memory.distance(look(number).frame, QUIET) <= RADIUS for number in range(30)]
    assert known == [False] * 10 + [True] * 20
    second = AppearanceMemory(object_distances, capacity=20)
    second.restore(memory.state())
    assert [second.distance(look(number).frame, QUIET) <= RADIUS for number in range(30)] == known
    second.add(look(99).frame, QUIET)
    assert second.distance(look(10).frame, QUIET) > RADIUS, "the oldest is still forgotten first"
    with pytest.raises(ValueError, match="reshape"):
        second.restore(b"12")
