"""Checkpoints: a damaged or half-written file is never loaded, and the previous one takes its place."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra `train` (make .venv/installed-training)")

from streamer.training import checkpoint  # noqa: E402
from streamer.training.checkpoint import Checkpoint  # noqa: E402
from streamer.training.errors import UnusableCheckpoint  # noqa: E402

RECIPE = {"seed": 1, "set": "abc"}


def made(step: int) -> Checkpoint:
    weights = {"weight": torch.full((3,), float(step))}
    return Checkpoint(RECIPE, step, weights, weights, {"state": {}}, {"rows": [[1, 0.5]]})


def step_at(path: Path) -> int | None:
    found = checkpoint.load(path, RECIPE)
    return found.step if found else None


def test_the_newest_is_loaded_whole(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    assert step_at(path) is None
    checkpoint.save(path, made(1))
    checkpoint.save(path, made(2))
    found = checkpoint.load(path, RECIPE)
    assert found is not None
    assert (found.step, found.memory) == (2, {"rows": [[1, 0.5]]})
    assert found.network["weight"].tolist() == [2, 2, 2]


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_file_is_passed_over_for_the_previous_one(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "training.pt"
    checkpoint.save(path, made(1))
    checkpoint.save(path, made(2))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"cut": path.read_bytes()[:-9], "changed": bytes(data), "empty": b""}[damage])
    assert step_at(path) == 1
    checkpoint.previous(path).write_bytes(b"x")
    with pytest.raises(UnusableCheckpoint, match="no sound checkpoint"):
        checkpoint.load(path, RECIPE)


def test_a_kill_between_the_steps_of_a_save_leaves_a_sound_file(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    part = path.with_name("training.pt.part")
    part.write_bytes(b"half of the first")
    assert step_at(path) is None
    checkpoint.save(path, made(1))
    part.write_bytes(b"half of the second")
    assert step_at(path) == 1
    checkpoint.save(path, made(2))
    path.replace(part)  # after the old file was moved aside, before the new one has the name
    assert step_at(path) == 2
    checkpoint.save(path, made(3))
    assert step_at(path) == 3


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    checkpoint.save(path, made(1))
    with pytest.raises(UnusableCheckpoint, match="another recipe: `seed` was 1, and is 2 now"):
        checkpoint.load(path, RECIPE | {"seed": 2})
    checkpoint.remove(path)
    assert list(tmp_path.iterdir()) == []
