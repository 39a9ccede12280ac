"""The answer for one image: what the dispatcher returns to routes and streams."""

from __future__ import annotations

from dataclasses import dataclass

from inference.core.detections import Boxes


# Not frozen, though nobody changes one: that would make each construction three times as slow.
@dataclass(slots=True)
class Prediction:
    """Boxes of one image and where its time went. Sizes in pixels of the upright original."""

    width: int
    height: int
    #: float32 (N, 6): x1, y1, x2, y2, score, class id, highest score first.
    boxes: Boxes
    decode_ms: float
    queue_ms: float
    inference_ms: float
    postprocess_ms: float
    #: Images that ran together.
    batch_size: int
    #: Whether a part of the image is missing or wrong; boxes are of what could be decoded.
    damaged: bool = False
