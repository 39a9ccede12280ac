"""How far two models differ on one frame: a committee that costs one more run. Pure."""

from __future__ import annotations

from inference.core.detections import Boxes
from inference.core.overlap import match
from streamer.sampling.uncertainty import MAX_BOXES

LEAST_IOU = 0.5


def disagreement(first: Boxes, second: Boxes) -> float:
    """Return ``1 - sum over pairs of IoU (p + q) / sum of all scores``, in [0, 1]; 0 where both see nothing.

    Pairs are matched greedily, same class, IoU of 0.5 and more; the 50 best boxes of each side count.
    """
    first, second = first[:MAX_BOXES], second[:MAX_BOXES]
    total = float(first[:, 4].sum() + second[:, 4].sum())
    if not total:
        return 0.0
    agreed = sum(
        iou * float(first[row, 4] + second[column, 4]) for row, column, iou in match(first, second, LEAST_IOU)
    )
    return min(1.0, max(0.0, 1 - agreed / total))
