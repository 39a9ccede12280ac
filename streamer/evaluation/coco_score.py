"""Computes average precision with pycocotools, as for COCO."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from inference.core.detections import Boxes
from streamer.datasets.labelled_set import LabelledPicture

Floats = npt.NDArray[np.float64]
#: Ranges of areas in square pixels of the picture, as COCO defines them.
SIZES = ("small", "medium", "large")
#: Recalls at which precision is read.
RECALLS: Floats = np.linspace(0, 1, 101)


@dataclass(frozen=True, slots=True)
class ClassMatches:
    """How the boxes of one class match objects, at the ten IoU thresholds from .5 to .95."""

    #: (n,): index of the picture of each box, best score first, up to the last box that matches.
    pictures: npt.NDArray[np.int64]
    #: (10, n): whether the box matches an object.
    hits: npt.NDArray[np.bool_]
    #: (pictures,): number of objects.
    objects: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CocoScore:
    """Average precisions, 0..1; NaN where there are no objects."""

    map50: float
    map50_95: float
    #: (classes,) each.
    ap50: Floats
    ap50_95: Floats
    #: Mean AP50-95 of objects by size.
    by_size: dict[str, float]
    #: (classes, 101): precision at IoU .5 by recall; NaN for classes without objects.
    precision: Floats
    #: By class, for the bootstrap.
    matches: tuple[ClassMatches, ...]


def coco_score(
    pictures: Sequence[LabelledPicture], found: Sequence[Boxes], classes: Sequence[str]
) -> CocoScore:
    """Return the scores of boxes (n, 6), whose last column is the index of the class in ``classes``."""
    evaluation = _evaluated(pictures, found, classes)
    # (IoU thresholds, recalls, classes, sizes, most boxes): the last entries are all sizes (0), 100 boxes.
    precision = np.where(evaluation.eval["precision"] > -1, evaluation.eval["precision"], np.nan)[..., -1]
    per_class = _mean(precision[..., 0], (0, 1))
    per_class_50 = _mean(precision[0, :, :, 0], 0)
    return CocoScore(
        map50=float(_mean(precision[0, :, :, 0])),
        map50_95=float(_mean(precision[..., 0])),
        ap50=per_class_50,
        ap50_95=per_class,
        by_size={size: float(_mean(precision[..., number])) for number, size in enumerate(SIZES, 1)},
        precision=precision[0, :, :, 0].T,
        matches=tuple(_matches(evaluation, index, len(pictures)) for index in range(len(classes))),
    )


def _evaluated(pictures: Sequence[LabelledPicture], found: Sequence[Boxes], classes: Sequence[str]) -> Any:
    annotations: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for image_id, (picture, boxes) in enumerate(zip(pictures, found, strict=True), 1):
        for box, class_id in zip(picture.boxes.tolist(), picture.classes.tolist(), strict=True):
            annotations.append(_entry(len(annotations) + 1, image_id, class_id, box))
        for row in boxes.tolist():
            detections.append(_entry(len(detections) + 1, image_id, int(row[5]), row) | {"score": row[4]})
    images = [{"id": n, "width": p.width, "height": p.height} for n, p in enumerate(pictures, 1)]
    categories = [{"id": n, "name": name} for n, name in enumerate(classes, 1)]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        sets = []
        for entries in (annotations, detections):
            loaded = COCO()
            loaded.dataset = {"images": images, "categories": categories, "annotations": entries}
            loaded.createIndex()
            sets.append(loaded)
        evaluation = COCOeval(*sets, iouType="bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _entry(number: int, image_id: int, class_id: int, box: Sequence[float]) -> dict[str, Any]:
    x1, y1, x2, y2 = box[:4]
    return {
        "id": number,
        "image_id": image_id,
        "category_id": class_id + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": (x2 - x1) * (y2 - y1),
        "iscrowd": 0,
    }


def _mean(values: Floats, axis: int | tuple[int, ...] | None = None) -> Any:
    """Return the mean without NaN; NaN where there is nothing else."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _matches(evaluation: Any, class_index: int, picture_count: int) -> ClassMatches:
    """Return the matches of a class at all sizes; ``evalImgs`` lists classes, then sizes, then pictures."""
    sizes = len(evaluation.params.areaRng)
    begin = class_index * sizes * picture_count
    objects = np.zeros(picture_count, np.int64)
    scores, pictures, hits = [np.zeros(0)], [np.zeros(0, np.int64)], [np.zeros((10, 0), bool)]
    for index, entry in enumerate(evaluation.evalImgs[begin : begin + picture_count]):
        if entry is not None:
            objects[index] = len(entry["gtIds"])
            scores.append(np.array(entry["dtScores"]))
            pictures.append(np.full(len(entry["dtScores"]), index))
            hits.append(np.asarray(entry["dtMatches"]).reshape(10, -1) > 0)
    order = np.argsort(-np.concatenate(scores), kind="mergesort")
    ordered = np.concatenate(hits, axis=1)[:, order]
    # Boxes after the last hit change no average precision.
    kept = int(np.max(np.nonzero(ordered.any(axis=0))[0], initial=-1)) + 1
    return ClassMatches(np.concatenate(pictures)[order][:kept], ordered[:, :kept], objects)
