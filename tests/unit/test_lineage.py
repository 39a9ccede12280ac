"""What clients are told of a manifest: parents, set and scores, and nothing of another kind."""

from __future__ import annotations

from typing import Any

import pytest

from inference.models.lineage import lineage_of
from inference.models.manifest import Manifest
from inference.models.model import Family, ModelInfo, Placement
from streamer.server.served_models import describe_model

PARENT = {"name": "codes_v1", "sha256": "ab" * 32}
TRAINED = Manifest(
    parents=(PARENT,),
    training={"set": "cd" * 32, "seed": 1},
    metrics={"val": {"map50": 0.84, "map50_95": 0.6, "ap50": {"mug": 0.9}}, "note": "by hand"},
)


def info(lineage: Any) -> ModelInfo:
    return ModelInfo(
        "own", "ef" * 32, Family.YOLO, ("mug",), 320, 320, Placement.CENTRED, 114, lineage=lineage
    )


def test_parents_set_and_scores_are_told() -> None:
    found: Any = lineage_of(TRAINED)
    assert found == {
        "parents": [PARENT],
        "set": "cd" * 32,
        "scores": {"val": {"map50": 0.84, "map50_95": 0.6}},
    }
    assert describe_model(info(found))["lineage"] == found
    sent = ModelInfo.from_dict(info(found).to_dict())
    assert sent == info(found)


@pytest.mark.parametrize(
    "manifest",
    [
        Manifest(),
        Manifest(training={"set": 5}, metrics={"val": [1], "test": {"map50": float("nan")}}),
        Manifest(training={"set": "x" * 100_000}),
    ],
)
def test_a_manifest_that_does_not_say_gives_none(manifest: Manifest) -> None:
    assert lineage_of(manifest) is None
    assert "lineage" not in describe_model(info(None))


def test_what_workers_are_sent_is_bounded() -> None:
    many = Manifest(parents=(PARENT,) * 100, metrics={f"{'p' * 900}{n}": {"map50": 0.5} for n in range(100)})
    assert len(repr(lineage_of(many))) < 1500
