"""Frames as the ring carries them to the numbers that a model sees; the convention is `family`'s."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from inference.models.family import Convention
from inference.models.manifest import Colour

#: Of AVX-512, the largest.
_VECTOR_BYTES = 64

Plane: TypeAlias = npt.NDArray[np.uint8]


class Preprocessor:
    """Writes ``(pixel * scale - mean) / std``, plane by plane, into a model's input buffer.

    Each inference thread needs its own, because of the scratch planes. Splitting the frame first and then
    converting whole planes takes six tenths of the time of a strided conversion (bench/model_side.py).
    ``patches``: the model takes images in patches, as `Stem` describes; height and width must be even then.
    """

    def __init__(
        self,
        convention: Convention,
        width: int,
        height: int,
        patches: tuple[tuple[int, int], ...] = (),
    ) -> None:
        order = (2, 1, 0) if convention.colour is Colour.RGB else (0, 1, 2)
        #: B, G and R.
        self._colours = _scratch(3, height, width)
        #: In patches, for each colour: its even and its odd columns. Two lines of the frame make one of
        #: these, the upper in its left half.
        self._columns = [_scratch(2, height // 2, width) for _ in self._colours] if patches else []
        sources = [self._colours[colour] for colour in order]
        if patches:
            half = width // 2
            sources = [
                self._columns[colour][column][:, row * half : (row + 1) * half]
                for row, column in patches
                for colour in order
            ]
        pixels = len(sources) // 3
        #: For each plane of the model: where it comes from, its factor and its offset.
        self._planes = tuple(
            (source, np.float32(convention.scale / std), np.float32(-mean / std))
            for source, mean, std in zip(
                sources, convention.mean * pixels, convention.std * pixels, strict=True
            )
        )

    def fill(self, frame: Plane, planes: npt.NDArray[np.floating]) -> None:
        """Write one frame (height, width, 3), BGR, into ``planes`` (3, height, width), or its patches."""
        cv2.split(frame, self._colours)
        for colour, columns in zip(self._colours, self._columns, strict=False):
            # Neighbours in a line are two channels: OpenCV takes two or three apart quickly, six not.
            cv2.split(colour.reshape(-1, colour.shape[1], 2), columns)
        for target, (source, factor, offset) in zip(planes, self._planes, strict=True):
            if factor == 1:
                np.copyto(target, source)
            else:
                np.multiply(source, factor, out=target, casting="same_kind")
            if offset:
                np.add(target, offset, out=target, casting="same_kind")


def _scratch(count: int, height: int, width: int) -> list[Plane]:
    """Return planes that lie differently to a vector register's size.

    Into planes that lie alike OpenCV writes past the caches, and the conversion waits for memory: 0.23 ms
    for 416 px instead of 0.17 (bench/model_side.py).
    """
    stride = -(-height * width // _VECTOR_BYTES) * _VECTOR_BYTES + 1
    memory = np.empty(count * stride, dtype=np.uint8)
    starts = range(0, count * stride, stride)
    return [memory[start : start + height * width].reshape(height, width) for start in starts]
