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
    takes about half the time that strided conversion does (tests/bench/model_side.py). ``patches``: the
    model takes pictures in patches, as `stem.Stem` has it; height and width are even then.
    """

    def __init__(
        self,
        convention: Convention,
        width: int,
        height: int,
        patches: tuple[tuple[int, int], ...] = (),
    ) -> None:
        order = (2, 1, 0) if convention.colour is Colour.RGB else (0, 1, 2)
        self._in_patches = bool(patches)
        #: B, G and R; in patches B, G, R, B, G, R of a block's pixels, for its upper and its lower row.
        self._scratch = (
            [list(row) for row in np.empty((2, 6, height // 2, width // 2), dtype=np.uint8)]
            if patches
            else [list(np.empty((3, height, width), dtype=np.uint8))]
        )
        #: For each plane of the model: where it comes from, its factor and its offset.
        self._planes = tuple(
            (
                self._scratch[row][3 * column + source],
                np.float32(convention.scale / std),
                np.float32(-mean / std),
            )
            for row, column in patches or ((0, 0),)
            for source, mean, std in zip(order, convention.mean, convention.std, strict=True)
        )

    def fill(self, frame: npt.NDArray[np.uint8], planes: npt.NDArray[np.floating]) -> None:
        """Write one frame (height, width, 3), BGR, into ``planes`` (3, height, width), or its patches."""
        if self._in_patches:
            height, width, _ = frame.shape
            blocks = frame.reshape(height // 2, 2, width // 2, 6)
            cv2.split(blocks[:, 0], self._scratch[0])
            cv2.split(blocks[:, 1], self._scratch[1])
        else:
            cv2.split(frame, self._scratch[0])
        for target, (source, factor, offset) in zip(planes, self._planes, strict=True):
            if factor == 1:
                np.copyto(target, source)
            else:
                np.multiply(source, factor, out=target, casting="same_kind")
            if offset:
                np.add(target, offset, out=target, casting="same_kind")
