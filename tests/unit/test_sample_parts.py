"""Exports keep samples in their parts, near-duplicates together, and test for random samples."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from streamer.cli.main import main
from streamer.datasets.statistics import Split
from tests.helpers.candidates import store_sample
from tests.unit.images import encode
from tests.unit.label_exports import picture

HOUR_S = 3600
START = 1_800_000_000.0


def _store(folder: Path, seed: int, reason: str, hour: int, *, copy: int = 0, stream: str = "gate") -> str:
    """Store the picture of a seed, or a slightly changed copy of it; return its sample id."""
    image = np.clip(picture(seed).astype(int) + copy, 0, 255).astype(np.uint8)
    fields = {"stream": stream, "at": START + hour * HOUR_S, "width": 160, "height": 120}
    return Path(store_sample(folder, encode(cv2.GaussianBlur(image, (0, 0), 0.7)), reason, **fields)).stem


def _export(folder: Path, out: Path, *words: str) -> dict[str, str]:
    """Return the part of each sample of an export."""
    shutil.rmtree(out, ignore_errors=True)
    assert (
        main(["samples", "export", "--in", str(folder), "--format", "yolo", "--out", str(out), *words]) == 0
    )
    images = json.loads((out / "samples.json").read_text())["images"]
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.jpg")} == set(images)
    return {entry["id"]: entry["part"] for entry in images.values()}


def test_test_has_random_samples_only_and_other_parts_have_all(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    random = {_store(folder, n, "random", n) for n in range(20)}
    hard = {_store(folder, n + 100, "uncertainty", n) for n in range(20)}
    parts = _export(folder, tmp_path / "out", "--split", "50,20,30")
    assert set(parts) == random | hard
    assert {name for name, part in parts.items() if part == "test"} < random
    counts = Counter(parts[name] for name in random)
    assert min(counts[part] for part in ("train", "val", "test")) > 0


def test_near_duplicates_are_in_one_part_and_a_hard_one_of_test_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "samples"
    groups = []
    for seed in range(15):  # the copies are hours apart, so their hours are in different parts
        first = _store(folder, seed, "random", seed)
        copies = [
            _store(folder, seed, reason, 40 + seed + n, copy=n) for n, reason in ((9, "random"), (5, "user"))
        ]
        groups.append((first, *copies))
    parts = _export(folder, tmp_path / "out", "--split", "40,20,40")
    for first, again, reported in groups:
        assert parts[first] == parts[again]
        assert parts.get(reported) == (None if parts[first] == "test" else parts[first])
    left_out = sum(parts[first] == "test" for first, _, _ in groups)
    assert left_out > 0
    assert f"{left_out} samples left out" in capsys.readouterr().err


def test_a_sample_stays_in_its_part_in_every_later_export(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    for seed in range(20):
        _store(folder, seed, "random", seed)
    first = _export(folder, tmp_path / "out", "--split", "50,20,30")
    # Earlier copies arrive late, others in other hours, and a day is deleted.
    for seed in range(20):
        _store(folder, seed, "random", 500 + seed, copy=7)
        _store(folder, seed, "random", -700 - seed, copy=4)
    gone = sorted(first)[:8]
    for path in [path for path in folder.rglob("*.*") if path.name[:64] in gone]:
        path.unlink()
    second = _export(folder, tmp_path / "out", "--split", "50,20,30")
    assert len(second) == 12 + 40
    assert {name: second[name] for name in first if name not in gone} == {
        name: part for name, part in first.items() if name not in gone
    }
    # The same without the file: only with it does a sample keep its part whatever is added.
    (folder / "parts.json").unlink()
    without = _export(folder, tmp_path / "out", "--split", "50,20,30")
    assert any(without[name] != part for name, part in second.items())


def test_parts_of_a_labelled_set_can_be_kept(tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    name = _store(folder, 1, "random", 1)
    (tmp_path / "parts.json").write_text(json.dumps({name: "val", "other": "test"}))
    words = ("--parts", str(tmp_path / "parts.json"), "--split", "100,0,0")
    assert _export(folder, tmp_path / "out", *words) == {name: "val"}
    assert not (folder / "parts.json").exists()
    (tmp_path / "parts.json").write_text(json.dumps({name: "dev"}))
    command = ("samples", "export", "--in", str(folder), "--format", "coco", "--out", str(tmp_path / "x"))
    assert main([*command, "--parts", str(tmp_path / "parts.json")]) == 4


@pytest.mark.parametrize(
    ("reason", "split", "words"),
    [
        ("uncertainty", "80,10,10", ["test is empty", "no sample is random"]),
        ("random", "100,0,0", []),
        ("random", "50,49,1", ["is empty", "of 1 hours"]),
        ("uncertainty", "0,0,100", ["chosen because they are hard"]),
    ],
)
def test_empty_parts_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reason: str, split: str, words: list[str]
) -> None:
    for seed in range(3):
        _store(tmp_path / "samples", seed, reason, 0)
    _export(tmp_path / "samples", tmp_path / "out", "--split", split)
    error = capsys.readouterr().err
    assert all(word in error for word in words)
    assert ("is empty" in error) is any("is empty" in word for word in words)


def test_hours_of_test_are_divided_between_train_and_val_for_other_samples() -> None:
    split = Split.parse("60,20,20")
    hours = [("gate", f"2027-01-{n:04}") for n in range(2000)]
    for hour in hours:
        usual, other = split.subset_of(*hour), split.subset_of(*hour, may_be_test=False)
        assert other == usual if usual != "test" else other in ("train", "val")
    shares = Counter(split.subset_of(*hour, may_be_test=False) for hour in hours)
    assert shares["train"] / 2000 == pytest.approx(0.75, abs=0.04)
    assert Split.parse("0,0,1").subset_of("gate", "x", may_be_test=False) == "test"
