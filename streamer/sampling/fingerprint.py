"""A picture's perceptual hash: near-duplicates differ in few of its 64 bits. Pure."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

#: Bits that differ at most between pictures that count as the same.
DUPLICATE_BITS = 6
#: Hashes remembered of one stream.
REMEMBERED = 512


def fingerprint(image: npt.NDArray[np.uint8]) -> int:
    """Return the dHash of a BGR picture: whether each of 8 x 8 cells is brighter than its left neighbour."""
    small = cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), (9, 8), interpolation=cv2.INTER_AREA)
    bits = np.packbits(small[:, 1:] > small[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")


class Remembered:
    """The last hashes of one stream; the oldest are forgotten."""

    def __init__(self, room: int = REMEMBERED) -> None:
        self._hashes = np.zeros(room, np.uint64)
        self._count = 0

    def add(self, value: int) -> None:
        """Remember one."""
        self._hashes[self._count % len(self._hashes)] = value
        self._count += 1

    def nearest_bits(self, value: int) -> int:
        """Return by how many bits the most similar one differs; 64 when there is none."""
        known = self._hashes[: min(self._count, len(self._hashes))]
        if not known.size:
            return 64
        return int(np.bitwise_count(known ^ np.uint64(value)).min())
