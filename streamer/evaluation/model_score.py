"""Scores one model on one part of a labelled set, with intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from streamer.datasets.labelled_set import LabelledPicture, LabelledSet
from streamer.datasets.sample import BadRequest
from streamer.evaluation.bootstrap import (
    RESAMPLES,
    interval,
    mean_precisions,
    resample_counts,
    resampled_means,
)
from streamer.evaluation.coco_score import CocoScore, Floats, coco_score
from streamer.evaluation.model_run import OpenModel, PictureDetections, detect_all
from streamer.evaluation.operating_point import OperatingPoint, operating_point

#: Called with the current step and the completed share of it, 0..1.
OnProgress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % interval; NaN if it is not defined."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """Return plain JSON types, with null for NaN."""
        return {"value": number(self.value), "low": number(self.low), "high": number(self.high)}


@dataclass(frozen=True, slots=True)
class ModelScore:
    """The figures of one model."""

    name: str
    sha256: str
    #: Name in the model's manifest, family and input size.
    description: str
    classes: tuple[str, ...]
    #: Classes of the set that the model does not have; they count as 0.
    lacking: tuple[str, ...]
    picture_count: int
    map50: Estimate
    map50_95: Estimate
    false_per_empty: Estimate
    coco: CocoScore
    #: At the threshold from which the service shows boxes.
    point: OperatingPoint
    #: Median milliseconds of a model run on one core, or on the device.
    run_ms: float
    provider: str
    detections: tuple[PictureDetections, ...]
    #: mAP50 of each resample, to compare models with each other.
    resampled_map50: Floats

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON types."""
        point = self.point
        return {
            "model": self.name,
            "sha256": self.sha256,
            "description": self.description,
            "map50": self.map50.to_dict(),
            "map50_95": self.map50_95.to_dict(),
            "false_per_empty_picture": self.false_per_empty.to_dict(),
            "empty_pictures": int(point.is_empty.sum()),
            "threshold": round(point.threshold, 4),
            "by_class": {
                name: {
                    "ap50": number(self.coco.ap50[index]),
                    "ap50_95": number(self.coco.ap50_95[index]),
                    "objects": int(point.objects[index]),
                    "recall": number(point.recall[index]),
                    "precision": number(point.precision[index]),
                    "lacking": name in self.lacking,
                }
                for index, name in enumerate(self.classes)
            },
            "by_size": {size: number(value) for size, value in self.coco.by_size.items()},
            "confusion": point.confusion.tolist(),
            "run_ms": round(self.run_ms, 2),
            "provider": self.provider,
        }


def number(value: float) -> float | None:
    """Return a figure with four decimals for JSON, which has no NaN."""
    return None if math.isnan(value) else round(float(value), 4)


def pictures_of(labelled: LabelledSet, part: str) -> tuple[LabelledPicture, ...]:
    """Return the pictures of a part. Raises BadRequest if there are none, or none with objects."""
    pictures = labelled.part(part)
    if not any(len(picture.boxes) for picture in pictures):
        counts = ", ".join(f"{len(labelled.part(name))} {name}" for name in ("train", "val", "test"))
        raise BadRequest(
            f"--part is {part}; it has {len(pictures)} pictures, none with objects (the set has {counts})"
        )
    return pictures


def score_model(
    model: OpenModel,
    pictures: Sequence[LabelledPicture],
    classes: tuple[str, ...],
    on_progress: OnProgress = lambda step, share: None,
    resamples: int = RESAMPLES,
) -> ModelScore:
    """Return the figures of a model on pictures. Raises CannotRead or DamagedSample."""
    count = len(pictures)
    found = detect_all(model, pictures, lambda done: on_progress(f"{model.name}: pictures", done / count))
    boxes = [entry.boxes for entry in found]
    on_progress(f"{model.name}: average precision", 1.0)
    coco = coco_score(pictures, boxes, classes)
    truth = [(picture.boxes, picture.classes) for picture in pictures]
    point = operating_point(truth, boxes, len(classes), model.threshold)
    counts = resample_counts(count, resamples)
    on_progress(f"{model.name}: intervals", 1.0)
    map50s, maps = mean_precisions(coco.matches, counts)
    false = resampled_means(point.boxes_of, point.is_empty, counts)
    info = model.detector.model
    return ModelScore(
        model.name,
        info.sha256,
        f"{info.name}, {info.family.value}, {info.input_width}x{info.input_height}",
        classes,
        model.lacking,
        count,
        Estimate(coco.map50, *interval(map50s)),
        Estimate(coco.map50_95, *interval(maps)),
        Estimate(point.false_per_empty, *interval(false)),
        coco,
        point,
        statistics.median(entry.run_s for entry in found) * 1e3,
        info.provider,
        tuple(found),
        map50s,
    )


def difference(score: ModelScore, base: ModelScore) -> Estimate:
    """Return by how much the mAP50 of a model exceeds that of another one on the same pictures.

    The interval is that of the difference on the same resamples, which is narrower than those of both
    figures suggest.
    """
    return Estimate(
        score.map50.value - base.map50.value,
        *interval(np.subtract(score.resampled_map50, base.resampled_map50)),
    )
