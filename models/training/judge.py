"""Scores weights during a training: codes found in pictures, and pictures without a code that have a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from inference.core.detection_params import DetectionParams
from inference.core.detections import Boxes
from inference.models.layout import CONVENTIONS, Layout
from inference.models.model import Family
from inference.postprocess.boxes import Postprocessor
from inference.postprocess.nms import suppress
from inference.preprocess.letterbox import Letterbox
from models.training.score import code_overlap
from models.training.symbols import CLASSES
from models.training.textures import Image
from streamer.evaluation.operating_point import operating_point
from streamer.training.network import Detector, Exported
from streamer.training.pictures import NetworkInput
from streamer.training.views import Labelled


class Picture(Protocol):
    """A picture that is read when it is needed, so that many of them need little memory."""

    def image(self) -> Image:
        """Return the picture (h, w, 3), BGR."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What weights do at a threshold. Each entry is a number and the number of all."""

    threshold: float
    #: Codes found in photographs, and in drawn scenes.
    photographed: tuple[int, int]
    drawn: tuple[int, int]
    #: Pictures without a code that have a box.
    empty: tuple[int, int]

    @property
    def recall(self) -> float:
        """Share of the codes in photographs that were found; 0 without codes."""
        return self.photographed[0] / max(1, self.photographed[1])

    @property
    def empty_share(self) -> float:
        """Share of the pictures without a code that have a box; 0 without such pictures."""
        return self.empty[0] / max(1, self.empty[1])


@dataclass(frozen=True, slots=True)
class Found:
    """The boxes (n, 6) of each picture of a `Judge`, in pixels of the picture, from a low score on."""

    photographed: tuple[Boxes, ...]
    drawn: tuple[Boxes, ...]
    empty: tuple[Boxes, ...]


class Judge:
    """Scores weights on the same pictures each time; ``side`` is that of the network's input in pixels.

    Photographs without a code count among the pictures without one.
    """

    def __init__(
        self,
        photos: Sequence[Labelled],
        drawn: Sequence[Labelled],
        empty: Sequence[Picture],
        side: int,
        *,
        agnostic_nms: bool,
    ) -> None:
        self._photos, self._drawn, self._side = [p for p in photos if len(p.boxes)], drawn, side
        self._empty = [*(photo for photo in photos if not len(photo.boxes)), *empty]
        self._agnostic_nms = agnostic_nms

    def look(self, network: Detector, lowest: float) -> Found:
        """Return the boxes with at least the score ``lowest``; the network is then in evaluation mode."""
        model = Exported(network, self._side).eval()
        layout = Layout(Family.YOLO, ("output0",), network.class_count, CONVENTIONS[Family.YOLO])
        processor = Postprocessor(layout, self._side, self._side, network.class_count)
        params = DetectionParams(conf_threshold=lowest, agnostic_nms=self._agnostic_nms)

        def boxes(pictures: Sequence[Picture]) -> tuple[Boxes, ...]:
            return tuple(
                _boxes(model, processor, params, self._side, picture.image()) for picture in pictures
            )

        return Found(boxes(self._photos), boxes(self._drawn), boxes(self._empty))

    def tally(self, found: Found, threshold: float) -> Tally:
        """Return what boxes amount to at a threshold, which is not below the score from which they are."""
        with_box = sum(bool((boxes[:, 4] >= threshold).any()) for boxes in found.empty)
        return Tally(
            threshold,
            _codes_found(self._photos, found.photographed, threshold),
            _codes_found(self._drawn, found.drawn, threshold),
            (with_box, len(self._empty)),
        )


def _codes_found(pictures: Sequence[Labelled], found: Sequence[Boxes], threshold: float) -> tuple[int, int]:
    """Return the number of codes that were found, and of all but those that training ignores."""
    truth = [(p.boxes[p.class_ids >= 0], p.class_ids[p.class_ids >= 0]) for p in pictures]
    point = operating_point(truth, found, len(CLASSES), threshold, code_overlap)
    return int(point.found.sum()), int(point.objects.sum())


@torch.no_grad()
def _boxes(
    model: Exported, processor: Postprocessor, params: DetectionParams, side: int, image: Image
) -> Boxes:
    slot = np.empty((side, side, 3), np.uint8)
    place = Letterbox.fit(image.shape[1], image.shape[0], NetworkInput(side))
    place.write(image, slot)
    planes: npt.NDArray[np.uint8] = np.ascontiguousarray(slot[..., ::-1].transpose(2, 0, 1))
    (output,) = model(torch.from_numpy(planes)[None].float() / 255).numpy()
    return place.to_source(suppress(processor.candidates([output], params), params))
