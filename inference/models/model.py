"""Describes a loaded model; the inference process sends the description to the workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from inference.core.detection_params import DetectionParams

#: Unix time of the year 9999, the last one that dates can have.
_LAST_TIME = 253_402_300_800


class Family(StrEnum):
    """Names the output layout and input convention of a detector; docs/models.md has a table."""

    YOLO = "yolo"
    YOLO_END2END = "yolo-end2end"
    YOLOV5 = "yolov5"
    YOLOV7_END2END = "yolov7-end2end"
    YOLOX = "yolox"
    YOLO_NAS = "yolo-nas"
    DETR = "detr"


class Placement(StrEnum):
    """Says how an image is fitted into the model input."""

    CENTRED = "centred"
    TOP_LEFT = "top-left"
    STRETCH = "stretch"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Describes one served model as workers and clients see it. Sizes are in pixels."""

    name: str
    sha256: str
    family: Family
    labels: tuple[str, ...]
    input_width: int
    input_height: int
    placement: Placement
    #: Grey level of the border that letterboxing leaves.
    pad_value: int
    #: Execution provider in use, such as ``cpu`` or ``cuda``.
    provider: str = "cpu"
    #: Batch sizes that were warmed up.
    buckets: tuple[int, ...] = (1,)
    #: Threshold that the manifest sets; None stands for the default of the service.
    conf_threshold: float | None = None
    #: Whether boxes of different classes suppress each other, for requests that do not choose.
    agnostic_nms: bool = False
    #: Those labels whose boxes are printed codes; None if the manifest does not say.
    code_classes: tuple[str, ...] | None = None
    #: Where the model comes from and what it scored (`lineage_of`); None if its manifest does not say.
    lineage: Mapping[str, Any] | None = None
    #: Training, promotion and evaluations (`card_of`); None if its manifest does not say.
    card: Mapping[str, Any] | None = None
    #: Name of the file that the settings name, after links are resolved.
    file: str = ""
    #: Unix time at which the process that serves the model has loaded it; 0 if it is unknown.
    loaded_at: float = 0.0

    @property
    def default_params(self) -> DetectionParams:
        """Parameters for requests and streams that set none."""
        if self.conf_threshold is None:
            return DetectionParams(agnostic_nms=self.agnostic_nms)
        return DetectionParams(conf_threshold=self.conf_threshold, agnostic_nms=self.agnostic_nms)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; the inverse of :meth:`from_dict`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelInfo:
        """Rebuild from the result of :meth:`to_dict`. Raises KeyError, TypeError or ValueError."""
        values = dict(data)
        values["family"] = Family(values["family"])
        values["placement"] = Placement(values["placement"])
        values["labels"] = tuple(values["labels"])
        values["buckets"] = tuple(values["buckets"])
        if values.get("code_classes") is not None:
            values["code_classes"] = tuple(values["code_classes"])
        model = cls(**values)
        _check(model)
        return model


def _check(model: ModelInfo) -> None:
    """Raise TypeError or ValueError for values that no model has."""
    texts = (model.name, model.sha256, model.provider, model.file, *model.labels)
    numbers = (model.input_width, model.input_height, *model.buckets)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("name, sha256, provider, file and labels are texts")
    if not all(type(number) is int and number > 0 for number in numbers):
        raise ValueError("sizes and buckets are whole numbers above 0")
    if type(model.pad_value) is not int or not 0 <= model.pad_value <= 255:
        raise ValueError(f"`pad_value` is {model.pad_value!r:.40}; allowed are 0 to 255")
    if model.conf_threshold is not None and not 0 <= model.conf_threshold <= 1:
        raise ValueError(f"`conf_threshold` is {model.conf_threshold!r:.40}; allowed are 0 to 1")
    if model.code_classes is not None and not set(model.code_classes) <= set(model.labels):
        raise ValueError("`code_classes` has labels that the model does not have")
    for name, value in (("lineage", model.lineage), ("card", model.card)):
        if value is not None and not isinstance(value, dict):
            raise TypeError(f"`{name}` is {value!r:.40}; expected an object")
    if type(model.loaded_at) not in (int, float) or not 0 <= model.loaded_at < _LAST_TIME:
        raise ValueError(f"`loaded_at` is {model.loaded_at!r:.40}; expected a Unix time")
    if type(model.agnostic_nms) is not bool:
        raise TypeError(f"`agnostic_nms` is {model.agnostic_nms!r:.40}; allowed are true and false")
