"""Counts what a model gets right and wrong at one threshold: recall, precision, confusions, false boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.core.detections import Boxes
from inference.core.overlap import greedy_pairs, pairwise_iou

#: Least IoU of a box with the object that it finds.
MATCH_IOU = 0.5

Counts = npt.NDArray[np.int64]
#: Returns how well boxes (n, 6) fit objects (m, 4) of classes (m,), as a table (n, m) of 0..1.
Overlap = Callable[[Boxes, npt.NDArray[np.float32], npt.NDArray[np.int64]], npt.NDArray[np.floating]]


def iou_overlap(
    boxes: Boxes, objects: npt.NDArray[np.float32], _classes: npt.NDArray[np.int64]
) -> npt.NDArray[np.floating]:
    """Return the IoU of each box with each object."""
    return pairwise_iou(boxes, objects)


@dataclass(frozen=True, slots=True)
class PictureErrors:
    """What is wrong in one picture at the threshold."""

    #: Indices of objects that no box of their class found.
    missed: tuple[int, ...]
    #: Indices of boxes that found no object of their class.
    false: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.missed) + len(self.false)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The counts over all pictures."""

    threshold: float
    #: (classes + 1, classes + 1): objects by true and found class; the last row is "no object", the last
    #: column "not found".
    confusion: Counts
    #: (classes,) each: objects, objects found by a box of their class, and boxes.
    objects: Counts
    found: Counts
    boxes: Counts
    #: (pictures,): number of boxes of each picture, and whether nothing is in it.
    boxes_of: Counts
    is_empty: npt.NDArray[np.bool_]
    errors: tuple[PictureErrors, ...]

    @property
    def recall(self) -> npt.NDArray[np.float64]:
        """Share of the objects that were found, by class; NaN for classes without objects."""
        return _share(self.found, self.objects)

    @property
    def precision(self) -> npt.NDArray[np.float64]:
        """Share of the boxes that found an object of their class, by class; NaN for classes without boxes."""
        return _share(self.found, self.boxes)

    @property
    def false_per_empty(self) -> float:
        """Boxes per picture with nothing in it; NaN if there are no such pictures."""
        count = int(self.is_empty.sum())
        return float(self.boxes_of[self.is_empty].sum() / count) if count else float("nan")


def operating_point(
    truth: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]],
    found: Sequence[Boxes],
    class_count: int,
    threshold: float,
    overlap: Overlap = iou_overlap,
) -> OperatingPoint:
    """Return the counts for objects, given as boxes (m, 4) and classes (m,), and found boxes (n, 6).

    A box finds the object that it fits best, with an IoU of at least .5, and each object is found once.
    """
    confusion = np.zeros((class_count + 1, class_count + 1), np.int64)
    objects, hits, boxes_by_class = (np.zeros(class_count, np.int64) for _ in range(3))
    errors = []
    kept_of = [boxes[boxes[:, 4] >= threshold] for boxes in found]
    for (wanted, classes), kept in zip(truth, kept_of, strict=True):
        kinds = kept[:, 5].astype(np.int64)
        table = overlap(kept, wanted, classes)
        same = np.where(kinds[:, None] == classes[None, :], table, 0)
        pairs = greedy_pairs(same, MATCH_IOU)
        found_boxes, found_objects = {row for row, _ in pairs}, {column for _, column in pairs}
        errors.append(
            PictureErrors(
                tuple(index for index in range(len(wanted)) if index not in found_objects),
                tuple(index for index in range(len(kept)) if index not in found_boxes),
            )
        )
        np.add.at(objects, classes, 1)
        np.add.at(boxes_by_class, kinds, 1)
        np.add.at(hits, classes[sorted(found_objects)], 1)
        _confuse(confusion, table, classes, kinds, pairs)
    return OperatingPoint(
        threshold,
        confusion,
        objects,
        hits,
        boxes_by_class,
        np.array([len(kept) for kept in kept_of], np.int64),
        np.array([len(classes) == 0 for _, classes in truth], np.bool_),
        tuple(errors),
    )


def _confuse(
    confusion: Counts,
    table: npt.NDArray[np.floating],
    classes: npt.NDArray[np.int64],
    kinds: npt.NDArray[np.int64],
    pairs: Sequence[tuple[int, int]],
) -> None:
    """Count one picture. Right boxes come first; what is left is matched without regard to its class."""
    rows, columns = {row for row, _ in pairs}, {column for _, column in pairs}
    rest = table.copy()
    rest[sorted(rows)] = 0
    rest[:, sorted(columns)] = 0
    others = greedy_pairs(rest, MATCH_IOU)
    for row, column in (*pairs, *others):
        confusion[classes[column], kinds[row]] += 1
    rows |= {row for row, _ in others}
    columns |= {column for _, column in others}
    for column in set(range(len(classes))) - columns:
        confusion[classes[column], -1] += 1
    for row in set(range(len(kinds))) - rows:
        confusion[-1, kinds[row]] += 1


def _share(part: Counts, whole: Counts) -> npt.NDArray[np.float64]:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
