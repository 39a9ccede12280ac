"""Suppresses duplicates: keeps the best of overlapping boxes, of each class or of all classes together.

This is non-maximum suppression (NMS). `boxes` makes the candidates.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from inference.core.detection_params import DetectionParams
from inference.core.detections import Boxes

#: Accepts every score, because candidates have already passed the threshold.
_ANY_SCORE = -1.0


def suppress(candidates: Boxes, params: DetectionParams) -> Boxes:
    """Return the boxes that overlap no better box of their class by more than the IoU threshold.

    With ``params.agnostic_nms`` they overlap no better box of any class. ``candidates`` must be finite and
    have an area. The result is sorted by score and has at most ``params.max_detections`` boxes.
    """
    if len(candidates) < 2:
        return best(candidates, params)
    corners: Any = candidates[:, :4].astype(np.float64)
    # OpenCV separates classes by shifting each class by the largest coordinate. Boxes with negative
    # coordinates would overlap those of the neighbouring class, so all boxes are moved to the origin first.
    corners[:, 2:] -= corners[:, :2]
    corners[:, :2] -= corners[:, :2].min(axis=0)
    # The type stubs of OpenCV only allow sequences, but OpenCV takes arrays, too, without copying.
    scores: Any = candidates[:, 4]
    classes: Any = np.zeros(len(candidates), np.int32)
    if not params.agnostic_nms:
        classes = candidates[:, 5].astype(np.int32)
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
