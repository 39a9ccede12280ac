"""Saves the state of a training in a file, which each save replaces atomically, and loads it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from models.training.recipe import Recipe


@dataclass(slots=True)
class Checkpoint:
    """Holds everything that a training needs to resume as if it had not been interrupted."""

    recipe: dict[str, Any]
    step: int
    network: dict[str, Any]
    average: dict[str, Any]
    optimiser: dict[str, Any]


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint atomically: a reader finds the complete old file or the complete new one."""
    part = path.with_suffix(".part")
    with part.open("wb") as stream:
        torch.save({name: getattr(checkpoint, name) for name in checkpoint.__slots__}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)


def load(path: Path, recipe: Recipe) -> Checkpoint | None:
    """Return the checkpoint of this recipe, or None if there is none.

    Raises ValueError when the file belongs to another recipe.
    """
    if not path.exists():
        return None
    found = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    if found.recipe != plain(recipe):
        raise ValueError(f"{path}: it was made by another recipe; remove it, or name another --work folder")
    return found


def plain(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as plain dicts, lists, numbers and text, the types that a checkpoint can hold."""
    values = asdict(recipe)
    values["shape"] = {name: list(v) if isinstance(v, tuple) else v for name, v in values["shape"].items()}
    return values
