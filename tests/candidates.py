"""Candidates for the observer's tests, and the boxes in them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from inference.core.detections import Boxes
from streamer.sampling.candidate import Candidate, Origin
from streamer.sampling.selection import Choice
from tests.unit.pictures import encode, scene

ORIGIN = Origin("gate", "websocket", "v1", "nano", "ab" * 32, ("cat", "dog", "bird"))


def boxes(*scores: float, label: int = 0, spread: float = 50.0) -> Boxes:
    """Boxes far from each other, with these scores."""
    rows = [[spread * i, 10, spread * i + 20, 30, score, label] for i, score in enumerate(scores)]
    return np.array(rows, np.float32).reshape(-1, 6)


def candidate(*scores: float, stream: str = "gate", at: float = 1_800_000_000.0, **fields: Any) -> Candidate:
    """A candidate of a smooth picture with these scores; ``fields`` replace the defaults."""
    values: dict[str, Any] = {
        "origin": dataclasses.replace(ORIGIN, stream=stream),
        "captured_at": at,
        "seq": 7,
        "threshold": 0.5,
        "low_threshold": 0.25,
        "iou_threshold": 0.45,
        "class_ids": (),
        "width": 160,
        "height": 96,
        "rotation": 0,
        "data": encode(scene()),
        "boxes": boxes(*scores),
    }
    return Candidate(**(values | fields))


def choice(found: Candidate, *reasons: str) -> Choice:
    """A choice of that candidate."""
    return Choice(found, reasons or ("uncertainty",), {"uncertainty": 0.9}, 0.8, 0x0123456789ABCDEF)
