"""Non-maximum suppression: of overlapping boxes of one class the best stays. Comes after `decode`."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from inference.core.detection_params import DetectionParams
from inference.core.detections import Boxes

#: Every candidate has passed its score threshold already.
_ANY_SCORE = -1.0


def suppress(candidates: Boxes, params: DetectionParams) -> Boxes:
    """Return the boxes that no better one of their class covers by more than the IoU threshold.

    ``candidates`` are finite and have areas. Sorted by score, at most ``params.max_detections``.
    """
    if len(candidates) < 2:
        return best(candidates, params)
    corners: Any = candidates[:, :4].astype(np.float64)
    # OpenCV keeps classes apart by moving each by the largest coordinate; boxes that begin left of
    # or above the origin would reach into the neighbouring class.
    corners -= corners[:, :2].min(axis=0)[[0, 1, 0, 1]]
    corners[:, 2:] -= corners[:, :2]
    # OpenCV's stubs promise sequences only; arrays are taken as they are, without a copy to lists.
    scores: Any = candidates[:, 4]
    classes: Any = candidates[:, 5].astype(np.int32)
    kept = cv2.dnn.NMSBoxesBatched(
        corners,
        scores,
        classes,
        _ANY_SCORE,
        params.iou_threshold,
    )
    return best(candidates[np.asarray(kept, dtype=np.intp).ravel()], params)


def best(candidates: Boxes, params: DetectionParams) -> Boxes:
    """Return at most ``params.max_detections`` boxes, sorted by score, highest first."""
    order = np.argsort(-candidates[:, 4], kind="stable")[: params.max_detections]
    return candidates[order]
