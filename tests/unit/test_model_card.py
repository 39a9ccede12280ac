"""What the versions page is told of a manifest: training, promotion, scores, and nothing of another kind."""

from __future__ import annotations

import json
from typing import Any

from inference.models.manifest import Manifest
from inference.models.model import Family, ModelInfo, Placement
from inference.models.model_card import card_of

PROMOTED = {
    "set": "cd" * 32,
    "part": "test",
    "pictures": 24,
    "empty_pictures": 4,
    "map50": 0.84,
    "map50_95": 0.6,
    "ap50": {"mug": 0.9, "key": None, "stranger": 0.5},
    "ap50_95": {"mug": 0.7},
    "objects": {"mug": 12, "key": 0},
    "by_size": {"small": None, "large": 0.7, "huge": 1.0},
    "intervals": {"map50": [0.8, 0.9], "map50_95": [0.5], "other": [1, 2]},
    "false_per_empty_picture": 0.0,
    "threshold": 0.35,
    "run_ms": 7.2,
    "provider": "cpu",
    "promoted": {"as": "v2", "at": "2026-12-01T15:00:00+00:00"},
    "replaced": {"name": "first", "sha256": "ab" * 32, "map50": 0.8, "change": [0.04, -0.01, 0.09]},
}


def card(**fields: Any) -> Any:
    return card_of(Manifest(**fields), ("mug", "key"))


def test_scores_promotion_and_training_are_read() -> None:
    found = card(
        training={"set": "cd" * 32, "seed": 0, "versions": {"torch": "2"}}, metrics={"promotion": PROMOTED}
    )
    assert found["training"] == {"set": "cd" * 32, "seed": 0}
    assert found["promotion"] == {
        "as": "v2",
        "at": "2026-12-01T15:00:00+00:00",
        "replaced": {
            "name": "first",
            "sha256": "ab" * 32,
            "map50_change": {"value": 0.04, "low": -0.01, "high": 0.09},
        },
    }
    scores = found["evaluations"]["promotion"]
    assert scores["by_class"] == {
        "mug": {"ap50": 0.9, "ap50_95": 0.7, "objects": 12},
        "key": {"ap50": None, "objects": 0},
    }
    assert scores["by_size"] == {"small": None, "large": 0.7}
    assert scores["intervals"] == {"map50": [0.8, 0.9]}
    numbers = {name: scores[name] for name in ("map50", "false_per_empty_picture", "pictures", "run_ms")}
    assert numbers == {"map50": 0.84, "false_per_empty_picture": 0.0, "pictures": 24, "run_ms": 7.2}


def test_what_is_of_another_kind_is_left_out() -> None:
    odd = {
        "val": {
            "map50": float("nan"),
            "ap50": [1],
            "by_size": 3,
            "intervals": {"map50": ["a", "b"]},
            "set": 5,
        },
        "test": [1],
        "promotion": {"promoted": {"as": "v2"}, "map50": True},
    }
    assert card(metrics=odd, training={"set": [], "seed": True}) is None
    assert card() is None


def test_what_workers_are_sent_is_bounded() -> None:
    names = [f"c{number}" for number in range(2000)]
    long = "x" * 100_000
    manifest = Manifest(
        licence=long,
        training={f"{long}{n}": n for n in range(100)},
        metrics={
            f"{long}{n}": {"map50": 0.5, "set": long, "ap50": dict.fromkeys(names, 0.1)} for n in range(50)
        },
    )
    found: Any = card_of(manifest, ("c1", "c2"))
    assert len(json.dumps(found)) < 10_000


def test_workers_get_the_card() -> None:
    info = ModelInfo(
        "own", "ef" * 32, Family.YOLO, ("mug", "key"), 320, 320, Placement.CENTRED, 114,
        card=card(metrics={"promotion": PROMOTED}), file="own.onnx", loaded_at=1.7e9,
    )  # fmt: skip
    assert ModelInfo.from_dict(json.loads(json.dumps(info.to_dict()))) == info
