"""Scores weights during a training: recall on photographs, and pictures without a code that have a box."""

from __future__ import annotations

from collections.abc import Sequence

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
from models.training.photos import Photo
from models.training.score import score_photos
from models.training.symbols import CLASSES
from models.training.textures import Image
from streamer.training.network import Detector, Exported
from streamer.training.pictures import NetworkInput


class Judge:
    """Scores weights on the same pictures each time; ``side`` is that of the network's input in pixels."""

    def __init__(
        self, photos: Sequence[Photo], empty: Sequence[Image], side: int, threshold: float, agnostic_nms: bool
    ) -> None:
        self._photos, self._side, self._threshold = photos, side, threshold
        self._params = DetectionParams(conf_threshold=threshold, agnostic_nms=agnostic_nms)
        self._inputs = [self._placed(photo.image()) for photo in photos]
        self._empty = [self._placed(image) for image in empty]

    def __call__(self, network: Detector) -> tuple[float, float]:
        """Return the mean recall of the classes, and the share of pictures without a code that have a box.

        The network is in evaluation mode afterwards.
        """
        model = Exported(network, self._side).eval()
        layout = Layout(Family.YOLO, ("output0",), network.class_count, CONVENTIONS[Family.YOLO])
        processor = Postprocessor(layout, self._side, self._side, network.class_count)
        found = [self._found(model, processor, entry) for entry in self._inputs]
        result = score_photos(self._photos, found, self._threshold)
        recalls = [result.recall(name) for name in CLASSES if result.codes(name)]
        counts = [
            len(boxes) for boxes, photo in zip(found, self._photos, strict=True) if not len(photo.boxes)
        ]
        counts += [len(self._found(model, processor, entry)) for entry in self._empty]
        return float(np.mean(recalls)), float(np.mean(np.array(counts) > 0))

    def _placed(self, image: Image) -> tuple[npt.NDArray[np.uint8], Letterbox]:
        slot = np.empty((self._side, self._side, 3), np.uint8)
        place = Letterbox.fit(image.shape[1], image.shape[0], NetworkInput(self._side))
        place.write(image, slot)
        return np.ascontiguousarray(slot[..., ::-1].transpose(2, 0, 1)), place

    @torch.no_grad()
    def _found(
        self, model: Exported, processor: Postprocessor, entry: tuple[npt.NDArray[np.uint8], Letterbox]
    ) -> Boxes:
        """Return the boxes (n, 6) in pixels of the picture."""
        planes, place = entry
        (output,) = model(torch.from_numpy(planes)[None].float() / 255).numpy()
        return place.to_source(suppress(processor.candidates([output], self._params), self._params))
