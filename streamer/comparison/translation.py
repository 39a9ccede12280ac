"""Translates what a client asks of one model into the parameters of another one. Pure."""

from __future__ import annotations

import dataclasses

from inference.core.detection_params import DetectionParams
from inference.models.model import ModelInfo


def translate(params: DetectionParams, own: ModelInfo, other: ModelInfo) -> DetectionParams | None:
    """Return the parameters with which another model runs a frame for a client of ``own``.

    Where the client has set nothing, they are the other model's defaults. Classes are translated by their
    labels. Returns None if the client asked for classes of which the other model has none.
    """
    before, defaults = own.default_params, other.default_params
    class_ids = params.class_ids
    if class_ids and own.labels != other.labels:
        numbers = {label: number for number, label in enumerate(other.labels)}
        names = [own.labels[number] for number in class_ids if number < len(own.labels)]
        class_ids = tuple(numbers[name] for name in names if name in numbers)
        if not class_ids:
            return None
    changed = {
        name: getattr(defaults, name)
        for name in ("conf_threshold", "agnostic_nms")
        if getattr(params, name) == getattr(before, name)
    }
    return dataclasses.replace(params, class_ids=class_ids, **changed)
