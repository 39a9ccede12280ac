"""Parses the frame header of a JPEG: its kind of coding, its components, and the number of their blocks."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from streamer.imaging.errors import damaged, unsupported
from streamer.imaging.header import PixelLimits, check_size

_SEQUENTIAL, _PROGRESSIVE, _ARITHMETIC = (0xC0, 0xC1, 0xC9), (0xC2, 0xCA), (0xC9, 0xCA)
#: Usual sampling factors of luma if those of chroma are 1: 4:2:2, 4:2:0, 4:4:0, 4:1:1, 4:4:1.
_LUMA = {(2, 1), (2, 2), (1, 2), (4, 1), (1, 4)}
#: Bytes of one block of 8x8 coefficients, which libjpeg keeps in memory for images with several scans.
_BLOCK_BYTES = 128


@dataclass(frozen=True, slots=True)
class Component:
    """One channel of an image."""

    identifier: int
    #: Horizontal and vertical sampling factor, 1 to 4.
    across: int
    down: int


@dataclass(frozen=True, slots=True)
class JpegFrame:
    """A start-of-frame segment."""

    marker: int
    precision: int
    width: int
    height: int
    components: tuple[Component, ...]

    @classmethod
    def parse(cls, marker: int, segment: bytes) -> JpegFrame:
        """Read a segment's payload. Raises ImageError or struct.error when it is too short."""
        precision, height, width, count = struct.unpack_from(">BHHB", segment)
        if len(segment) < 6 + 3 * count:
            raise damaged("its frame header is too short")
        parts = (segment[at : at + 2] for at in range(6, 6 + 3 * count, 3))
        components = tuple(Component(name, factors >> 4, factors & 15) for name, factors in parts)
        return cls(marker, precision, width, height, components)

    @property
    def progressive(self) -> bool:
        """Whether the image is coded in several passes, each of which refines it."""
        return self.marker in _PROGRESSIVE

    @property
    def arithmetic(self) -> bool:
        """Whether the data are arithmetic-coded instead of Huffman-coded."""
        return self.marker in _ARITHMETIC

    def check(self, limits: PixelLimits) -> None:
        """Raise ImageError for a frame that is too large or uses a kind of coding that is not supported."""
        if self.marker not in _SEQUENTIAL + _PROGRESSIVE:
            raise unsupported("a lossless or hierarchical JPEG")
        check_size(self.width, self.height, limits)
        if self.precision != 8:
            raise unsupported(f"a JPEG with {self.precision} bits per channel")
        if len(self.components) not in (1, 3, 4):
            raise unsupported(f"a JPEG with {len(self.components)} channels")
        if not all(1 <= part.across <= 4 and 1 <= part.down <= 4 for part in self.components):
            raise damaged("its sampling factors are out of range")

    def blocks(self, index: int) -> int:
        """Return the number of blocks of component ``index``, padded as in a scan of several components."""
        part = self.components[index]
        most_x = max(other.across for other in self.components)
        most_y = max(other.down for other in self.components)
        return -(-self.width // (8 * most_x)) * part.across * -(-self.height // (8 * most_y)) * part.down

    @property
    def usual_sampling(self) -> bool:
        """Whether libjpeg-turbo's simpler interface supports the sampling factors."""
        first, *others = ((part.across, part.down) for part in self.components)
        black = others[2:]
        equal = all(factors == first for factors in others)
        return equal or (first in _LUMA and set(others[:2]) == {(1, 1)} and all(k == first for k in black))

    @property
    def coefficient_bytes(self) -> int:
        """Memory in bytes of all coefficients, which libjpeg keeps until the last of several scans."""
        return _BLOCK_BYTES * sum(self.blocks(index) for index in range(len(self.components)))

    def least_bytes(self) -> int:
        """Return a lower bound of the bytes of scan data.

        A Huffman code has at least one bit. Each block has at least two codes (DC, end of block) in a
        sequential image and one in a progressive image. Arithmetic coding has no such bound, so it is 0.
        """
        if self.arithmetic:
            return 0
        most_x = max(part.across for part in self.components)
        most_y = max(part.down for part in self.components)
        blocks = sum(
            -(-self.width * part.across // (8 * most_x)) * -(-self.height * part.down // (8 * most_y))
            for part in self.components
        )
        return blocks * (1 if self.progressive else 2) // 8
