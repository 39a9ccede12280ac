"""Saves the state of a training so that a kill at any moment loses at most the steps since the last save.

A file begins with one line: the SHA-256 digest of the rest. A save writes a new file, flushes it to the disk,
and only then lets it take the name; the file that had the name stays as the previous checkpoint. Loading
verifies the digest and falls back to the previous file.
"""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from streamer.core.durable import flush
from streamer.training.errors import UnusableCheckpoint

_DIGEST_BYTES = 64


@dataclass(slots=True)
class Checkpoint:
    """Holds everything that a training needs to resume as if it had not been interrupted.

    All values are tensors, or plain dicts, lists, numbers and text.
    """

    #: What identifies the training. A checkpoint of another recipe is refused.
    recipe: dict[str, Any]
    step: int
    network: dict[str, Any]
    average: dict[str, Any]
    optimiser: dict[str, Any]
    #: What else the training remembers, such as its history.
    memory: dict[str, Any]


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint; a reader finds a complete file at any moment. Raises OSError."""
    buffer = io.BytesIO()
    torch.save({name: getattr(checkpoint, name) for name in checkpoint.__slots__}, buffer)
    data = buffer.getvalue()
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as stream:
        stream.write(hashlib.sha256(data).hexdigest().encode() + b"\n")
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    if path.exists():
        path.replace(previous(path))
    part.replace(path)
    flush(path.parent)


def load(path: Path, recipe: dict[str, Any]) -> Checkpoint | None:
    """Return the newest sound checkpoint of this recipe, or None if there is none.

    Raises UnusableCheckpoint when a file belongs to another recipe, or when there are files and all are
    damaged.
    """
    damaged = []
    # A kill between the two renames of `save` leaves the new file under its temporary name.
    for candidate in (path, path.with_name(f"{path.name}.part"), previous(path)):
        try:
            found = _read(candidate)
        except FileNotFoundError:
            continue
        except ValueError as error:
            damaged.append(f"{candidate.name}: {error}")
            continue
        if found.recipe != recipe:
            raise UnusableCheckpoint(
                f"{candidate}: it was made by another recipe: {_difference(found, recipe)}"
            )
        return found
    if any(not line.startswith(f"{path.name}.part:") for line in damaged):
        raise UnusableCheckpoint(f"{path.parent}: no sound checkpoint: {'; '.join(damaged)}")
    return None


def previous(path: Path) -> Path:
    """Return the path of the checkpoint before the one at ``path``."""
    return path.with_name(f"{path.name}.previous")


def remove(path: Path) -> None:
    """Remove all checkpoints of a training."""
    for file in (path, path.with_name(f"{path.name}.part"), previous(path)):
        file.unlink(missing_ok=True)


def _read(path: Path) -> Checkpoint:
    """Read one file. Raises ValueError when it is damaged, or FileNotFoundError."""
    data = path.read_bytes()
    digest, content = data[:_DIGEST_BYTES], memoryview(data)[_DIGEST_BYTES + 1 :]
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise ValueError("its content does not have the digest that its first line says")
    return Checkpoint(**torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))


def _difference(found: Checkpoint, recipe: dict[str, Any]) -> str:
    names = [name for name in (*recipe, *found.recipe) if found.recipe.get(name) != recipe.get(name)]
    name = names[0]
    return f"`{name}` was {found.recipe.get(name)!r}, and is {recipe.get(name)!r} now"
