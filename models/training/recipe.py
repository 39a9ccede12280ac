"""Holds the recipes of the two default models: their networks and the parameters of their training."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from streamer.training.network import SHAPES, Shape

LICENCE = "Apache-2.0"
#: Entries in the metadata of the bundled files.
METADATA = {
    "description": "printed codes, see models/README.md",
    "author": "real-time-vision-api",
    "license": LICENCE,
}
#: The lowest score of a box that counts. It was chosen on the validation photographs, see the model card.
THRESHOLD = 0.35
#: Whether boxes of different classes on one code suppress each other: a code has one class.
AGNOSTIC_NMS = True
#: What the manifests of both models have in common.
MANIFEST = {"conf_threshold": THRESHOLD, "agnostic_nms": AGNOSTIC_NMS, "licence": LICENCE}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Describes one model: its network, its input side in pixels, and its training."""

    name: str
    shape: Shape
    side: int
    #: Number of rendered scenes of all kinds, and of further scenes that show only a textured surface.
    scenes: int
    textures: int
    #: Total number of views that the training shows, and number of views per step.
    views: int
    batch: int
    learning_rate: float
    seed: int
    #: The training starts with images of this side for this share of the steps: they cost less and teach as
    #: much.
    early_side: int = 0
    early_share: float = 0.0
    #: Share of the images that are shrunk by leaving out pixels. Linear resizing of very large photographs
    #: has the same effect.
    sampled_share: float = 0.0
    #: Share of photographs among the images, if the training gets a folder of photographs.
    photo_share: float = 0.22


RECIPES = {
    "v1": Recipe(
        name="codes_v1",
        shape=SHAPES["n"],
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
        shape=SHAPES["s"],
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


def data_digest(**what: int | str | None) -> str:
    """Return the SHA-256 of what determines the pictures of a training: counts, seed and photographs."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def training_record(recipe: Recipe, photographs: str | None) -> dict[str, Any]:
    """Return what a manifest says of a training; ``photographs`` is the digest of its photographs, if any."""
    data = data_digest(
        scenes=recipe.scenes, textures=recipe.textures, seed=recipe.seed, photographs=photographs
    )
    return {"seed": recipe.seed, "data": data, "views": recipe.views}


def plain(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as plain dicts, lists, numbers and text, the types that a checkpoint can hold."""
    values = asdict(recipe)
    values["shape"] = {name: list(v) if isinstance(v, tuple) else v for name, v in values["shape"].items()}
    return values
