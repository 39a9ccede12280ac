"""The result for one image, which the dispatcher returns to routes and streams."""

from __future__ import annotations

from dataclasses import dataclass

from inference.core.detections import Boxes


# Nobody changes an instance, but a frozen class would make each construction three times as slow.
@dataclass(slots=True)
class Prediction:
    """Boxes of one image and the time that each stage took. Sizes are in pixels of the upright original."""

    width: int
    height: int
    #: float32 (N, 6): x1, y1, x2, y2, score, class id, highest score first.
    boxes: Boxes
    decode_ms: float
    queue_ms: float
    inference_ms: float
    postprocess_ms: float
    #: Number of images that ran together.
    batch_size: int
    #: Whether a part of the image is missing or wrong; the boxes are those of what could be decoded.
    damaged: bool = False
