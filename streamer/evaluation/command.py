"""Evaluates several models on one part of a labelled set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streamer.datasets.labelled_set import LabelledPicture, load_set
from streamer.evaluation.bootstrap import LEVEL, RESAMPLES
from streamer.evaluation.model_run import open_model
from streamer.evaluation.model_score import ModelScore, OnProgress, difference, pictures_of, score_model


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of all models, and what they were measured on."""

    folder: Path
    part: str
    digest: str
    classes: tuple[str, ...]
    pictures: tuple[LabelledPicture, ...]
    scores: tuple[ModelScore, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON types."""
        first = self.scores[0]
        return {
            "schema": 1,
            "set": str(self.folder),
            "digest": self.digest,
            "part": self.part,
            "pictures": len(self.pictures),
            "classes": list(self.classes),
            "interval": {
                "level": LEVEL,
                "resamples": RESAMPLES,
                "method": "percentile bootstrap over pictures",
            },
            "models": [
                score.to_dict() | {"map50_change": difference(score, first).to_dict()}
                for score in self.scores
            ],
        }


def evaluate_models(
    folder: Path,
    names: Sequence[str],
    part: str = "test",
    device: str = "cpu",
    on_progress: OnProgress = lambda step, share: None,
) -> Evaluation:
    """Return the figures of models, given as files or names, on a part of the set in ``folder``.

    Raises BadSet, BadRequest, CannotRead, DamagedSample, ModelRefused or DeviceUnavailable.
    """
    labelled = load_set(folder)
    pictures = pictures_of(labelled, part)
    scores = []
    for name in names:
        on_progress(f"loading {name}", 0.0)
        model = open_model(name, labelled.classes, device)
        try:
            scores.append(score_model(model, pictures, labelled.classes, on_progress))
        finally:
            model.close()
    return Evaluation(folder, part, labelled.digest, labelled.classes, pictures, tuple(scores))
