"""Scores a detector on annotated photographs: recall by class, precision and false boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.core.detections import Boxes
from inference.core.overlap import pairwise_iou
from models.training.photos import Photo
from models.training.symbols import CLASSES
from streamer.evaluation.operating_point import OperatingPoint, operating_point


@dataclass(frozen=True, slots=True)
class Score:
    """The counts over photographs, with the figures of the model card."""

    photos: tuple[Photo, ...]
    point: OperatingPoint

    def codes(self, name: str) -> int:
        """Return the number of codes of a class."""
        return int(self.point.objects[CLASSES.index(name)])

    def recall(self, name: str) -> float:
        """Return the share of a class's codes that were found; NaN if there are no codes of the class."""
        return float(self.point.recall[CLASSES.index(name)])

    @property
    def precision(self) -> float:
        """Return the share of boxes on photographs with codes that are correct; NaN if there are no boxes."""
        boxes = int(self.point.boxes_of[~self.point.is_empty].sum())
        return float(self.point.found.sum() / boxes) if boxes else float("nan")

    @property
    def false_per_empty(self) -> float:
        """Return the boxes per photograph without codes; NaN if there are no such photographs."""
        return self.point.false_per_empty

    @property
    def wrong(self) -> list[str]:
        """File names of the photographs with a missed code or a false box, for a person to look at."""
        return [photo.path.name for photo, e in zip(self.photos, self.point.errors, strict=True) if len(e)]


def score_photos(photos: Sequence[Photo], found: Sequence[Boxes], threshold: float = 0.0) -> Score:
    """Return the score of the boxes (n, 6) that were found in each photograph, in its pixels."""
    truth = [(photo.boxes, photo.class_ids) for photo in photos]
    point = operating_point(truth, found, len(CLASSES), threshold, code_overlap)
    return Score(tuple(photos), point)


def code_overlap(
    boxes: Boxes, codes: npt.NDArray[np.float32], class_ids: npt.NDArray[np.int64]
) -> npt.NDArray[np.floating]:
    """Return how well boxes fit codes, (n, m): the IoU, and for a linear code 1 if its centre is in the box.

    The decoder that made the reference reports the full width of a linear code, but often only a few of its
    rows.
    """
    middle = (codes[:, :2] + codes[:, 2:]) / 2
    inside = (boxes[:, None, :2] <= middle) & (middle <= boxes[:, None, 2:4])
    is_linear = class_ids == CLASSES.index("barcode")
    result: npt.NDArray[np.floating] = np.where(is_linear, inside.all(axis=2), pairwise_iou(boxes, codes))
    return result
