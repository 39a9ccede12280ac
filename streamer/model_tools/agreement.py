"""How well the boxes of one model agree with those of another on the same images. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from inference.core.detections import Boxes
from inference.core.overlap import match

#: IoU from which two boxes of one class count as the same object.
MATCH_IOU = 0.5


@dataclass(slots=True)
class Agreement:
    """Counts over images; the reference's boxes are the ground truth. Without boxes, all shares are 1."""

    images: int = 0
    reference: int = 0
    found: int = 0
    ious: list[float] = field(default_factory=list)
    #: Score of the found box minus that of the reference, for each match.
    score_changes: list[float] = field(default_factory=list)

    def add(self, reference: Boxes, found: Boxes) -> None:
        """Count one image: boxes (N, 6) and (M, 6) of x1, y1, x2, y2, score, class, sorted by score.

        Each box matches at most one other; the pair with the highest IoU is matched first.
        """
        self.images += 1
        self.reference += len(reference)
        self.found += len(found)
        for row, column, overlap in match(reference, found, MATCH_IOU):
            self.ious.append(overlap)
            self.score_changes.append(float(found[column, 4] - reference[row, 4]))

    @property
    def recall(self) -> float:
        """Share of the reference's boxes that were found, 0..1."""
        return len(self.ious) / self.reference if self.reference else 1.0

    @property
    def precision(self) -> float:
        """Share of the found boxes that the reference has, 0..1."""
        return len(self.ious) / self.found if self.found else 1.0

    @property
    def worst(self) -> float:
        """The smaller of recall and precision."""
        return min(self.recall, self.precision)

    @property
    def mean_iou(self) -> float:
        """Mean IoU of matched boxes, 0..1."""
        return float(np.mean(self.ious)) if self.ious else 1.0

    @property
    def mean_score_change(self) -> float:
        """Mean absolute change of a score, 0..1."""
        return float(np.mean(np.abs(self.score_changes))) if self.score_changes else 0.0

    @property
    def largest_score_change(self) -> float:
        """Largest absolute change of a score, 0..1."""
        return float(np.max(np.abs(self.score_changes))) if self.score_changes else 0.0
