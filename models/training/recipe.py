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
    #: Rendered scenes of all kinds, and further ones that are a surface and nothing else.
    scenes: int
    textures: int
    #: Views of them that are shown in all, and views per step.
    views: int
    batch: int
    learning_rate: float
    seed: int
    #: For this share of the steps, images are of this side instead: they cost less and teach as much.
    early_side: int = 0
    early_share: float = 0.0
    #: Share of the images that are shrunk by leaving pixels out, as very large photographs are in effect.
    sampled_share: float = 0.0
    #: Share of photographs among the images, where a folder of them is given.
    photo_share: float = 0.22


RECIPES = {
    "v1": Recipe(
        name="codes_v1",
        shape=Shape(stem=16, widths=(24, 48, 96, 128), depth=1, neck=(48, 64, 96), head=48),
        side=320,
        scenes=16_000,
        textures=0,
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
        textures=1_500,
        views=135_000,
        batch=32,
        learning_rate=2e-3,
        seed=2,
        early_side=320,
        early_share=0.55,
        sampled_share=0.15,
    ),
}
