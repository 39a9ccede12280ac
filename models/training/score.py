"""Scores a detector on annotated photographs: recall by class, precision and false boxes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from inference.core.overlap import pairwise_iou
from models.training.photos import Photo
from models.training.symbols import CLASSES

_MIN_IOU = 0.5


@dataclass(slots=True)
class Score:
    """Keeps the counts of many photographs."""

    codes: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    false: int = 0
    empty_photos: int = 0
    false_on_empty: int = 0
    #: File names of the photographs with a missed code or a false box, for a person to look at.
    wrong: list[str] = field(default_factory=list)

    def recall(self, name: str) -> float:
        """Return the share of a class's codes that were found; NaN if there are no codes of the class."""
        return self.found[name] / self.codes[name] if self.codes[name] else float("nan")

    @property
    def precision(self) -> float:
        """Return the share of boxes on photographs with codes that are correct; NaN if there are no boxes."""
        right = self.found.total()
        return right / (right + self.false) if right + self.false else float("nan")

    @property
    def false_per_empty(self) -> float:
        """Return the boxes per photograph without codes; NaN if there are no such photographs."""
        return self.false_on_empty / self.empty_photos if self.empty_photos else float("nan")

    def add(self, photo: Photo, boxes: npt.NDArray[np.float32]) -> None:
        """Count one photograph; ``boxes`` (n, 6) are the detections, best first, in its pixels."""
        if not len(photo.class_ids):
            self.empty_photos += 1
            self.false_on_empty += len(boxes)
            if len(boxes):
                self.wrong.append(photo.path.name)
            return
        left = list(range(len(photo.class_ids)))
        false = 0
        for box in boxes:
            match = next(
                (index for index in left if _hits(box, photo.boxes[index], int(photo.class_ids[index]))), None
            )
            if match is None:
                false += 1
            else:
                left.remove(match)
                self.found[CLASSES[photo.class_ids[match]]] += 1
        for class_id in photo.class_ids:
            self.codes[CLASSES[class_id]] += 1
        self.false += false
        if left or false:
            self.wrong.append(photo.path.name)


def _hits(box: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32], class_id: int) -> bool:
    """Return whether a box matches a code: a linear code by the centre of the reference, others by overlap.

    The decoder that made the reference reports the full width of a linear code, but often only a few of its
    rows.
    """
    if int(box[5]) != class_id:
        return False
    if CLASSES[class_id] == "barcode":
        middle = (wanted[:2] + wanted[2:]) / 2
        return bool((middle >= box[:2]).all() and (middle <= box[2:4]).all())
    return float(pairwise_iou(box[None], wanted[None])[0, 0]) >= _MIN_IOU
