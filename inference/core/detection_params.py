"""Holds the thresholds that a client sets for a detector; without NumPy, as the supervisor imports it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
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

    def for_labels(
        self, before: Sequence[str], now: Sequence[str]
    ) -> tuple[DetectionParams, tuple[str, ...]]:
        """Return the parameters for a model with labels ``now``, and the wanted labels that it lacks.

        ``before`` are the labels that `class_ids` refer to. If the model has none of the wanted labels, all
        classes are kept.
        """
        if not self.class_ids or before == now:
            return self, ()
        wanted = [before[number] for number in self.class_ids]
        # Of labels that occur twice, the first one counts, as for clients that name a class.
        numbers = {label: number for number, label in reversed(tuple(enumerate(now)))}
        kept = tuple(numbers[label] for label in wanted if label in numbers)
        lost = tuple(label for label in wanted if label not in numbers)
        return dataclasses.replace(self, class_ids=kept), lost
