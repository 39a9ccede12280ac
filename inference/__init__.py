"""The inference process: models, micro-batching and the memory ring; knows nothing of HTTP, media or S3.

Other packages enter here: the values that cross, the errors, the client a worker uses, and the handle
that a supervisor uses. The loop and the detector stay inside (``python -m inference.engine.process``).
"""

import os

# ONNX Runtime's Linux builds send what they run to their makers, unless this is set before they are loaded.
# Whoever loads it imports this package first: docs/decisions/0013.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from inference.core.detections import NO_BOXES, Boxes, DetectionParams
from inference.core.errors import (
    DeadlineExceeded,
    DeviceUnavailable,
    InferenceError,
    InferenceFailed,
    InferenceLost,
    InferenceUnavailable,
    ModelRefused,
    RingFull,
)
from inference.models.model import Family, ModelInfo, Placement

__all__ = [
    "NO_BOXES",
    "Boxes",
    "DeadlineExceeded",
    "DetectionParams",
    "DeviceUnavailable",
    "Family",
    "InferenceError",
    "InferenceFailed",
    "InferenceLost",
    "InferenceUnavailable",
    "ModelInfo",
    "ModelRefused",
    "Placement",
    "RingFull",
]
