"""How well the boxes of one model agree with those of another on the same pictures. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from inference.core.detections import Boxes

#: Overlap from which two boxes of one class mean the same object.
MATCH_IOU = 0.5


@dataclass(slots=True)
class Agreement:
    """Counts over pictures; the reference's boxes are the truth here. Empty means as good as it gets."""

    pictures: int = 0
    reference: int = 0
    found: int = 0
    ious: list[float] = field(default_factory=list)
    #: Score of the found box minus that of the reference, for each match.
    score_changes: list[float] = field(default_factory=list)

    def add(self, reference: Boxes, found: Boxes) -> None:
        """Account one picture: boxes (N, 6) and (M, 6), x1, y1, x2, y2, score, class, sorted by score.

        Each box matches one other at most: the reference's best boxes choose first.
        """
        self.pictures += 1
        self.reference += len(reference)
        self.found += len(found)
        if not len(reference) or not len(found):
            return
        overlaps = iou_table(reference, found)
        overlaps[reference[:, 5, None] != found[None, :, 5]] = 0
        for row in range(len(reference)):
            column = int(overlaps[row].argmax())
            if overlaps[row, column] >= MATCH_IOU:
                self.ious.append(float(overlaps[row, column]))
                self.score_changes.append(float(found[column, 4] - reference[row, 4]))
                overlaps[:, column] = 0

    @property
    def recall(self) -> float:
        """Share of the reference's boxes that were found, 0..1."""
        return len(self.ious) / self.reference if self.reference else 1.0

    @property
    def precision(self) -> float:
        """Share of the found boxes that the reference has too, 0..1."""
        return len(self.ious) / self.found if self.found else 1.0

    @property
    def worst(self) -> float:
        """The smaller of recall and precision."""
        return min(self.recall, self.precision)

    @property
    def mean_iou(self) -> float:
        """Mean overlap of matching boxes, 0..1."""
        return float(np.mean(self.ious)) if self.ious else 1.0

    @property
    def mean_score_change(self) -> float:
        """Mean size of the change of a score, 0..1."""
        return float(np.mean(np.abs(self.score_changes))) if self.score_changes else 0.0

    @property
    def largest_score_change(self) -> float:
        """Largest size of the change of a score, 0..1."""
        return float(np.max(np.abs(self.score_changes))) if self.score_changes else 0.0


def iou_table(one: Boxes, other: Boxes) -> npt.NDArray[np.float32]:
    """Return intersection over union of each box of ``one`` with each of ``other``: (N, M)."""
    corner = np.maximum(one[:, None, :2], other[None, :, :2])
    opposite = np.minimum(one[:, None, 2:4], other[None, :, 2:4])
    shared = np.prod(np.clip(opposite - corner, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.asarray(shared / np.maximum(union, 1e-9), dtype=np.float32)
