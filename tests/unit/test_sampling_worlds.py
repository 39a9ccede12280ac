"""Distinct objects survive on moving grounds, and what moves on an empty wall does not.

The seeds differ from those with which the constants were chosen.
"""

from __future__ import annotations

import msgpack
import numpy as np
import pytest

from streamer.sampling.appearance import describe
from streamer.sampling.appearance_memory import RADIUS, AppearanceMemories
from tests.helpers.duplicate_worlds import WIDTH, Frames, belt, objects, wall


def survivors(frames: Frames, memories: AppearanceMemories | None = None) -> int:
    """Return how many frames are new beside those before them."""
    memories, kept = memories or AppearanceMemories(), 0
    for image, found in frames:
        shown = describe(image, found, WIDTH)
        if memories.novelty("s", shown) > RADIUS:
            memories.add("s", shown)
            kept += 1
    return kept


@pytest.mark.parametrize("where", ["plain", "moving slats"])
def test_grey_objects_of_one_outline_are_told_apart_by_their_texture(where: str) -> None:
    assert survivors(belt(objects("textured disks", 60, 31), where, 31)) >= 50


@pytest.mark.parametrize(
    ("where", "false_boxes"),
    [("leaves", "two"), ("spots of 8 px", "two"), ("spots of 20 px", "none"), ("clouds", "some")],
)
def test_what_moves_on_an_empty_wall_is_not_new(where: str, false_boxes: str) -> None:
    assert 1 <= survivors(wall(100, where, 32, false_boxes=false_boxes)) <= 5


def test_what_was_learned_of_the_noise_survives_a_restart() -> None:
    first, second = AppearanceMemories(), AppearanceMemories()
    survivors(wall(30, "spots of 8 px", 33, false_boxes="two"), first)
    second.restore(msgpack.unpackb(msgpack.packb(first.state(0.0, 0.0))), 0.0, 0.0)
    assert survivors(wall(10, "spots of 8 px", 34, false_boxes="two"), second) == 0
    with pytest.raises(ValueError, match="another way"):
        second.restore({"s": [b"", b""]}, 0.0, 0.0)


def test_pictures_that_have_nothing_to_do_with_each_other_are_all_new() -> None:
    rng = np.random.default_rng(35)
    patterns = rng.integers(0, 255, (20, 6, 8, 3)).astype(np.uint8)
    pictures = (np.kron(pattern, np.ones((40, 40, 1), np.uint8)) for pattern in patterns)
    assert survivors((picture, np.zeros((0, 6), np.float32)) for picture in pictures) == 20
