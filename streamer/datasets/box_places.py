"""Compares two pictures where only one of them has a box, for `near_duplicates`.

A model may find an object in one copy of a picture and miss it in another. If the pixels at the place of each
box look alike in both pictures, the boxes tell nothing apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

#: Side of the thumbnails that are compared.
THUMBNAIL_SIDE = 64
#: Boxes with a shorter side, in pixels of the thumbnail, are too small to tell.
_LEAST_SIDE = 1.5
#: Largest difference of the mean of a place, in grey levels, after the light of both pictures was aligned.
_SAME_MEAN = 10.0
#: Largest root mean square of the difference: in grey levels, or in deviations of the place itself, whatever
#: is more. Copies that were compressed again, made noisy, darkened, cut by a pixel or blurred stay below.
_SAME_LEVELS, _SAME_TEXTURE = 4.0, 0.3
#: Light may differ by this factor of contrast; a plain picture says nothing about its contrast.
_MOST_GAIN = 2.0
_LEAST_DEVIATION = 3.0
#: Copies that were cut are shifted; with its margin, a place is compared at shifts of up to one pixel.
_MARGIN = 1
_SHIFTS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
#: Number of pictures whose places are compared at once, which bounds the memory.
_AT_ONCE = 1024

Thumbnail = npt.NDArray[np.uint8]


def thumbnail(image: npt.NDArray[np.uint8]) -> Thumbnail:
    """Return the upright BGR image reduced to (64, 64, 3)."""
    small = cv2.resize(image, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


class BoxPlaces:
    """Knows in which pictures the places of a picture's boxes look as they do there."""

    def __init__(self, thumbnails: Sequence[Thumbnail], boxes: Sequence[npt.NDArray[np.float32]]) -> None:
        """Take the thumbnail and the boxes (n, 4) of each picture; boxes in parts of width and height."""
        rim = ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0))
        stacked = np.stack(thumbnails)
        self._means = stacked.mean(axis=(1, 2, 3), dtype=np.float32)
        self._deviations = np.maximum(stacked.std(axis=(1, 2, 3), dtype=np.float32), _LEAST_DEVIATION)
        self._pixels = np.pad(stacked, rim, mode="edge")
        self._boxes = boxes
        #: Row i, bit j: whether the places of the boxes of i look alike in j.
        self._alike = np.zeros((len(thumbnails), -(-len(thumbnails) // 8)), np.uint8)

    def compare(self, picture: int, others: npt.NDArray[np.intp]) -> None:
        """Note in which of the ``others`` the places of the boxes of a picture look as they do in it."""
        for box in self._boxes[picture]:
            if not len(others):
                return
            others = self._where_alike(picture, box, others)
        row = np.zeros(len(self._alike), bool)
        row[others] = True
        self._alike[picture] = np.packbits(row)

    def mutual(self, picture: int) -> npt.NDArray[np.intp]:
        """Return the pictures with which it is the same in both directions, after all were compared."""
        found = np.flatnonzero(np.unpackbits(self._alike[picture], count=len(self._alike)))
        bit = 0x80 >> (picture % 8)
        mutual: npt.NDArray[np.intp] = found[(self._alike[found, picture // 8] & bit) != 0]
        return mutual

    def _where_alike(
        self, picture: int, box: npt.NDArray[np.float32], others: npt.NDArray[np.intp]
    ) -> npt.NDArray[np.intp]:
        x1, y1, x2, y2 = (float(each) for each in np.clip(box, 0, 1) * THUMBNAIL_SIDE)
        if min(x2 - x1, y2 - y1) < _LEAST_SIDE:
            return others[:0]
        rows = slice(int(y1) + _MARGIN, int(np.ceil(y2)) + _MARGIN)
        columns = slice(int(x1) + _MARGIN, int(np.ceil(x2)) + _MARGIN)
        own = self._pixels[picture, rows, columns].astype(np.float32)
        texture = _SAME_TEXTURE * float(own.std(axis=(0, 1)).mean())
        # Give the others the light of this picture.
        gains = np.clip(self._deviations[picture] / self._deviations[others], 1 / _MOST_GAIN, _MOST_GAIN)
        levels = self._means[picture] - gains * self._means[others]
        kept = np.zeros(len(others), bool)
        for first in range(0, len(others), _AT_ONCE):
            some = slice(first, first + _AT_ONCE)
            kept[some] = self._look_alike(
                own, others[some], (rows, columns), gains[some], levels[some], max(_SAME_LEVELS, texture)
            )
        return others[kept]

    def _look_alike(
        self,
        own: npt.NDArray[np.float32],
        others: npt.NDArray[np.intp],
        place: tuple[slice, slice],
        gains: npt.NDArray[np.float32],
        levels: npt.NDArray[np.float32],
        limit: float,
    ) -> npt.NDArray[np.bool_]:
        """Return of each of the others whether its place looks like ``own`` at one of the shifts."""
        rows, columns = place
        means = self._pixels[:, rows, columns][others].mean(axis=(1, 2), dtype=np.float32)
        off = np.abs(gains[:, None] * means + levels[:, None] - own.mean(axis=(0, 1))).max(axis=1)
        result: npt.NDArray[np.bool_] = off <= _SAME_MEAN
        near = np.flatnonzero(result)
        least = np.full(len(near), np.inf, np.float32)
        for dy, dx in _SHIFTS if len(near) else ():
            moved = self._pixels[:, _moved(rows, dy), _moved(columns, dx)][others[near]]
            difference = gains[near, None, None, None] * moved + levels[near, None, None, None] - own
            np.minimum(least, np.square(difference).mean(axis=(1, 2, 3)), out=least)
        result[near] = least <= limit * limit
        return result


def _moved(part: slice, by: int) -> slice:
    return slice(part.start + by, part.stop + by)
