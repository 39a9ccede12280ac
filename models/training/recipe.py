"""How the two default models are made: their networks and the length of their training."""

from __future__ import annotations

from dataclasses import dataclass

from models.training.network import Shape


@dataclass(frozen=True, slots=True)
class Recipe:
    """One model: its network, input side in pixels, and how it is trained."""

    name: str
    shape: Shape
    side: int
    #: Rendered scenes, views of them that are shown in all, and views per step.
    scenes: int
    views: int
    batch: int
    learning_rate: float
    seed: int
    #: Share of photographs among the pictures, where a folder of them is given.
    photo_share: float = 0.22


RECIPES = {
    "v1": Recipe(
        name="codes_v1",
        shape=Shape(stem=16, widths=(24, 48, 96, 128), depth=1, neck=(48, 64, 96), head=48),
        side=320,
        scenes=16_000,
        views=160_000,
        batch=32,
        learning_rate=2e-3,
        seed=1,
    ),
    "v2": Recipe(
        name="codes_v2",
        shape=Shape(stem=16, widths=(32, 64, 128, 192), depth=2, neck=(64, 96, 128), head=64),
        side=416,
        scenes=16_000,
        views=140_000,
        batch=32,
        learning_rate=2e-3,
        seed=2,
    ),
}
