"""Places an image in the model input, and maps boxes back to the image. Only workers use it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from inference.core.detections import Boxes
from inference.models.model import Placement


class ModelInput(Protocol):
    """Declares the properties of a model that determine the placement; `ModelInfo` has them."""

    @property
    def input_width(self) -> int:
        """Width of the input in pixels."""

    @property
    def input_height(self) -> int:
        """Height of the input in pixels."""

    @property
    def placement(self) -> Placement:
        """How an image is placed in the input."""

    @property
    def pad_value(self) -> int:
        """Grey level of the border."""


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Holds the place of one upright image in the model input. All sizes are in pixels."""

    source_width: int
    source_height: int
    input_width: int
    input_height: int
    #: The part of the input that the image covers.
    resized_width: int
    resized_height: int
    left: int
    top: int
    pad_value: int
    #: Three rows for the four sides of a box: offsets to subtract, then factors, then the largest values.
    _to_source: npt.NDArray[np.float32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        scale_x, scale_y = self.source_width / self.resized_width, self.source_height / self.resized_height
        rows = (
            (self.left, self.top) * 2,
            (scale_x, scale_y) * 2,
            (self.source_width, self.source_height) * 2,
        )
        object.__setattr__(self, "_to_source", np.array(rows, np.float32))

    @classmethod
    def fit(cls, source_width: int, source_height: int, model: ModelInput) -> Letterbox:
        """Place an image of this size as the model's training did. Raises ValueError when it has no area."""
        if source_width < 1 or source_height < 1:
            raise ValueError(f"an image is at least 1x1 pixels; found {source_width}x{source_height}")
        if model.placement is Placement.STRETCH:
            width, height = model.input_width, model.input_height
        else:
            ratio = min(model.input_width / source_width, model.input_height / source_height)
            # YOLOX truncates where other families round. One row more or less changes scores by up to 0.07.
            whole = int if model.placement is Placement.TOP_LEFT else round
            width = min(model.input_width, max(1, whole(source_width * ratio)))
            height = min(model.input_height, max(1, whole(source_height * ratio)))
        centred = model.placement is Placement.CENTRED
        return cls(
            source_width=source_width,
            source_height=source_height,
            input_width=model.input_width,
            input_height=model.input_height,
            resized_width=width,
            resized_height=height,
            # If the padding is odd, the left or top border is the smaller one, as in the training frameworks.
            left=(model.input_width - width) // 2 if centred else 0,
            top=(model.input_height - height) // 2 if centred else 0,
            pad_value=model.pad_value,
        )

    def write(self, image: npt.NDArray[np.uint8], slot: npt.NDArray[np.uint8]) -> None:
        """Resize ``image`` into ``slot``; both are uint8 BGR (height, width, 3).

        The image may be the source at any scale; the slot has the size of the input. Also fills the border.
        Allocates nothing. Raises ValueError when a shape does not fit.
        """
        if slot.shape != (self.input_height, self.input_width, 3) or slot.dtype != np.uint8:
            raise ValueError(
                f"the slot must be uint8 {(self.input_height, self.input_width, 3)}; "
                f"found {slot.dtype} {slot.shape}"
            )
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"the image must be uint8 (height, width, 3); found {image.dtype} {image.shape}")
        right, bottom = self.left + self.resized_width, self.top + self.resized_height
        inside = slot[self.top : bottom, self.left : right]
        if image.shape == inside.shape:
            np.copyto(inside, image)
        else:
            size = (self.resized_width, self.resized_height)
            cv2.resize(image, size, dst=inside, interpolation=cv2.INTER_LINEAR)
        if self.top:
            slot[: self.top] = self.pad_value
        if bottom < self.input_height:
            slot[bottom:] = self.pad_value
        if self.left:
            slot[self.top : bottom, : self.left] = self.pad_value
        if right < self.input_width:
            slot[self.top : bottom, right:] = self.pad_value

    def to_source(self, boxes: Boxes) -> Boxes:
        """Map boxes (N, 6) from model-input to source pixels, clip them, and drop those without area."""
        if not len(boxes):
            return boxes
        mapped = boxes.copy()
        offsets, scales, most = self._to_source
        sides = mapped[:, :4]
        sides -= offsets
        sides *= scales
        np.maximum(sides, 0, out=sides)
        np.minimum(sides, most, out=sides)
        sound = sides[:, 2:] > sides[:, :2]
        return mapped if sound.all() else mapped[sound.all(axis=1)]
