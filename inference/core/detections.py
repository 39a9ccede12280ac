"""What is asked of a detector for one frame, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: float32 array of shape (N, 6): x1, y1, x2, y2, score, class id; sorted by score, highest first.
#: Boxes are xyxy, in pixels of the model input inside ``inference``, of the upright original outside.
Boxes = npt.NDArray[np.float32]

NO_BOXES: Boxes = np.empty((0, 6), dtype=np.float32)
NO_BOXES.setflags(write=False)


@dataclass(frozen=True, slots=True)
class DetectionParams:
    """Thresholds of one request or stream; the ranges are checked where they enter the service."""

    conf_threshold: float = 0.25
    iou_threshold: float = 0.45
    max_detections: int = 300
    #: Keep only these class ids; empty keeps all.
    class_ids: tuple[int, ...] = ()
