"""Frames as the ring carries them to the numbers that a model sees; the convention is `family`'s."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from inference.family import Convention
from inference.manifest import Colour


class Normaliser:
    """Writes ``(pixel * scale - mean) / std``, plane by plane, into a model's input buffer.

    One for each lane: its scratch planes are not shared. Splitting first and converting whole planes
    takes about half the time that strided conversion does (tests/bench/model_side.py).
    """

    def __init__(self, convention: Convention, width: int, height: int) -> None:
        order = (2, 1, 0) if convention.colour is Colour.RGB else (0, 1, 2)
        self._scratch = list(np.empty((3, height, width), dtype=np.uint8))
        #: For each plane of the model: which of B, G, R it is, its factor and its offset.
        self._planes = tuple(
            (self._scratch[source], np.float32(convention.scale / std), np.float32(-mean / std))
            for source, mean, std in zip(order, convention.mean, convention.std, strict=True)
        )

    def fill(self, frame: npt.NDArray[np.uint8], planes: npt.NDArray[np.floating]) -> None:
        """Write one frame (height, width, 3), BGR, into ``planes`` (3, height, width)."""
        cv2.split(frame, self._scratch)
        for target, (source, factor, offset) in zip(planes, self._planes, strict=True):
            if factor == 1:
                np.copyto(target, source)
            else:
                np.multiply(source, factor, out=target, casting="same_kind")
            if offset:
                np.add(target, offset, out=target, casting="same_kind")
