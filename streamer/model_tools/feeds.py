"""What a graph is fed with for a frame, by the very normaliser of the service."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from inference.engine.buffers import sizes_of
from inference.engine.detector import Detector
from inference.preprocess.preprocess import Normaliser

Feeds = dict[str, npt.NDArray[Any]]


class Feeder:
    """Makes the inputs of a run from one frame; a fixed batch is filled with copies of it."""

    def __init__(self, detector: Detector) -> None:
        image = detector.image
        self._image = image
        self._batch = image.batch or 1
        self._normaliser = Normaliser(detector.layout.convention, image.width, image.height)

    def feeds(self, frame: npt.NDArray[np.uint8]) -> Feeds:
        """Return the inputs by name for uint8 BGR (input height, width, 3)."""
        image = self._image
        planes = np.empty((1, 3, image.height, image.width), np.float16 if image.half else np.float32)
        self._normaliser.fill(frame, planes[0])
        feeds: Feeds = {image.name: np.repeat(planes, self._batch, axis=0)}
        if image.sizes_name is not None:
            feeds[image.sizes_name] = sizes_of(image, self._batch)
        return feeds
