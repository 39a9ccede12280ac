"""Imports labels by the command, and reads what became of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2

from streamer.cli.main import main
from streamer.datasets.labelled_set import LabelledPicture, load_set
from tests.unit.label_exports import Box, picture

A: Box = ("bolt", 10, 20, 50, 60)
B: Box = ("nut", 0, 0, 160, 120)
NAMES = [f"p{number}.png" for number in range(8)]


def import_labels(file: Path, source: str, out: Path, *words: object, code: int = 0) -> None:
    found = main(["labels", "import", str(file), "--from", source, "--out", str(out), *map(str, words)])
    assert found == code


def by_name(folder: Path) -> dict[str, LabelledPicture]:
    """Return the pictures of a set by the number of their seed."""
    digests = {hashlib.sha256(cv2.imencode(".png", picture(n))[1].tobytes()).hexdigest(): n for n in range(8)}
    return {f"p{digests[entry.id]}.png": entry for entry in load_set(folder).pictures}


def boxes_by_name(folder: Path) -> dict[str, list[Box]]:
    found = load_set(folder)
    return {
        name: [(found.classes[c], *box) for c, box in zip(entry.classes, entry.boxes.tolist(), strict=True)]
        for name, entry in by_name(folder).items()
    }
