"""Converts frames from the ring to the input of a model, by the convention of its family."""

from __future__ import annotations

from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from inference.models.layout import Convention
from inference.models.manifest import Colour

#: Size of the largest vector registers, those of AVX-512.
_VECTOR_BYTES = 64

Plane: TypeAlias = npt.NDArray[np.uint8]


class Preprocessor:
    """Writes ``(pixel * scale - mean) / std``, plane by plane, into a model's input buffer.

    Each inference thread needs its own instance, because of the scratch planes. Splitting the frame first and
    then converting whole planes takes 60 % of the time of a strided conversion (bench/model_side.py).
    ``patches``: the model takes images in patches, as `Stem` describes; height and width must be even then.
    ``channels_last``: the model takes (height, width, planes) instead of (planes, height, width).
    """

    def __init__(
        self,
        convention: Convention,
        width: int,
        height: int,
        patches: tuple[tuple[int, int], ...] = (),
        *,
        channels_last: bool = False,
    ) -> None:
        self._channels_last = channels_last
        self._grey = convention.colour is Colour.GREY
        order = {Colour.RGB: (2, 1, 0), Colour.BGR: (0, 1, 2), Colour.GREY: (0,)}[convention.colour]
        #: B, G and R, or one plane of grey.
        self._colours = _scratch(len(order), height, width)
        #: Only with patches: for each colour, a plane of its even and a plane of its odd columns. A row of
        #: such a plane holds two lines of the frame, the upper one in its left half.
        self._columns = [_scratch(2, height // 2, width) for _ in self._colours] if patches else []
        sources = [self._colours[colour] for colour in order]
        if patches:
            half = width // 2
            sources = [
                self._columns[colour][column][:, row * half : (row + 1) * half]
                for row, column in patches
                for colour in order
            ]
        pixels = len(patches) or 1
        #: Source, factor and offset of each plane of the model input.
        self._planes = tuple(
            (source, np.float32(convention.scale / std), np.float32(-mean / std))
            for source, mean, std in zip(
                sources,
                convention.mean[: len(order)] * pixels,
                convention.std[: len(order)] * pixels,
                strict=True,
            )
        )

    def fill(self, frame: Plane, planes: npt.NDArray[np.number]) -> None:
        """Write one frame (height, width, 3), BGR, into ``planes`` (3, height, width).

        A model that takes patches has one plane for each colour of each patch. For grey there is one plane,
        with the luma of the frame. With ``channels_last`` the planes are the last dimension.
        """
        if self._grey:
            cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY, dst=self._colours[0])
        else:
            cv2.split(frame, self._colours)
        if self._channels_last:
            planes = planes.transpose(2, 0, 1)
        for colour, columns in zip(self._colours, self._columns, strict=False):
            # Treat neighbouring pixels of a line as two channels: OpenCV splits two or three channels fast.
            cv2.split(colour.reshape(-1, colour.shape[1], 2), columns)
        for target, (source, factor, offset) in zip(planes, self._planes, strict=True):
            if factor == 1:
                np.copyto(target, source)
            else:
                np.multiply(source, factor, out=target, casting="same_kind")
            if offset:
                np.add(target, offset, out=target, casting="same_kind")


def _scratch(count: int, height: int, width: int) -> list[Plane]:
    """Return planes whose addresses differ modulo the size of a vector register.

    If all planes were aligned alike, OpenCV would write past the caches, and the conversion would wait for
    memory: 0.23 ms instead of 0.17 ms for 416 px (bench/model_side.py).
    """
    stride = -(-height * width // _VECTOR_BYTES) * _VECTOR_BYTES + 1
    memory = np.empty(count * stride, dtype=np.uint8)
    starts = range(0, count * stride, stride)
    return [memory[start : start + height * width].reshape(height, width) for start in starts]
