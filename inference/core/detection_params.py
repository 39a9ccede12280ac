"""Holds the thresholds that a client sets for a detector; without NumPy, as the supervisor imports it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DetectionParams:
    """Holds the thresholds of one request or stream. Callers check the ranges; this class does not."""

    conf_threshold: float = 0.25
    iou_threshold: float = 0.45
    max_detections: int = 300
    #: Keep only these class ids; empty keeps all.
    class_ids: tuple[int, ...] = ()
    #: Whether boxes of different classes suppress each other, too.
    agnostic_nms: bool = False
