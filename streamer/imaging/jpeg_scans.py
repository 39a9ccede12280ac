"""Reads the frame header and the scan headers of a JPEG, to bound the cost of decoding it.

A scan of a few bytes can make a decoder process the whole image, so the cost depends not on the size of the
file but on the number of coefficients that all scans visit together.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

from streamer.imaging.pixel_limits import PixelLimits, check_size, damaged, unsupported

_SEQUENTIAL, _PROGRESSIVE, _ARITHMETIC = (0xC0, 0xC1, 0xC9), (0xC2, 0xCA), (0xC9, 0xCA)
#: Usual sampling factors of luma if those of chroma are 1: 4:2:2, 4:2:0, 4:4:0, 4:1:1, 4:4:1.
_LUMA = {(2, 1), (2, 2), (1, 2), (4, 1), (1, 4)}
#: Bytes of one block of 8x8 coefficients, which libjpeg keeps in memory for images with several scans.
_BLOCK_BYTES = 128


@dataclass(frozen=True, slots=True)
class Component:
    """Describes one channel of an image."""

    identifier: int
    #: Horizontal and vertical sampling factor, 1 to 4.
    across: int
    down: int


@dataclass(frozen=True, slots=True)
class JpegFrame:
    """Holds the contents of a start-of-frame segment."""

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
        """Whether the image is coded progressively: in several passes, which refine it step by step."""
        return self.marker in _PROGRESSIVE

    @property
    def arithmetic(self) -> bool:
        """Whether the data are arithmetic-coded instead of Huffman-coded."""
        return self.marker in _ARITHMETIC

    def check(self, limits: PixelLimits) -> None:
        """Raise ImageError for a frame that is too large or uses a kind of coding that is not supported."""
        if self.marker not in _SEQUENTIAL + _PROGRESSIVE:
            raise unsupported("a lossless or hierarchical JPEG")
        if self.precision != 8:
            raise unsupported(f"a JPEG with {self.precision} bits per channel")
        if len(self.components) not in (1, 3, 4):
            raise unsupported(f"a JPEG with {len(self.components)} channels")
        if not all(1 <= part.across <= 4 and 1 <= part.down <= 4 for part in self.components):
            raise damaged("its sampling factors are out of range")
        check_size(self.width, self.height, limits, self._irreducible)

    def reduction(self, limits: PixelLimits) -> int:
        """Return the scale denominator with which the image meets ``limits``. Raises ImageError."""
        return check_size(self.width, self.height, limits, self._irreducible)

    @property
    def _irreducible(self) -> str:
        """The name in error messages of a JPEG that cannot be decoded at a reduced size; empty if it can."""
        if self.arithmetic:
            return "an arithmetic-coded JPEG"
        return "" if self.usual_sampling else "a JPEG of unusual sampling"

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
        """Memory in bytes of all coefficients, which libjpeg keeps if the image has several scans."""
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


_EOI, _SOS = 0xD9, 0xDA
#: Markers that may be between scans: tables, restart interval, number of lines, comments, APPn.
_BETWEEN_SCANS = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0)})
#: Most scans of any kind; encoders write about ten, optimisers about twenty.
_MAX_SCANS = 64
#: Most segments between scans; encoders write one or two tables before each scan.
_MAX_SEGMENTS = 256
#: Most visits of coefficients, for each pixel that the limits allow. A scan costs libjpeg up to 16 ns for
#: each block and 1 ns for each coefficient in it. The slowest images of 33.5 megapixels that pass
#: (refinements of zeros, scans full of correction bits) took 0.6 s of CPU time on the machine on which this
#: was tuned.
#: Standard progressive files need 11 visits a pixel (4:4:4) or 18 (CMYK); well optimised files need 21.
_MAX_VISITS_PER_PIXEL = 24
_VISITS_PER_BLOCK = 16
#: Visits for each pixel in one pass of a Huffman decoder over an image: each of at most four channels takes
#: 80 visits for 64 pixels. One such pass is always allowed, even if the image has more pixels than the limits
#: and is therefore reduced.
_VISITS_OF_ONE_PASS = 5
#: Visits counted for one arithmetic-coded coefficient. Decoding one takes up to 30 adaptive decisions of 4 ns
#: each, and malicious data need hardly any bits for them: 33.5 megapixels took 6 s. With this factor, the
#: largest image that passes has some 3 megapixels (5 with 4:2:0) and takes 0.5 s.
_ARITHMETIC_VISITS = 100
#: Bytes that `find_marker` searches in its first step and in each later one; smaller steps would be slower.
_FIRST_STEP, _STEP = 1 << 14, 1 << 17


@dataclass(frozen=True, slots=True)
class Scan:
    """Describes one pass over some components; a sequential image has at most one for each component."""

    #: Indices into the components of the frame.
    components: tuple[int, ...]
    #: First and last coefficient, 0 to 63.
    first: int
    last: int
    #: Successive approximation: how many low bits of each coefficient are missing before this scan (0 for a
    #: first scan), and how many are missing after it.
    high: int
    low: int

    @classmethod
    def parse(cls, segment: bytes, frame: JpegFrame) -> Scan:
        """Read the payload of a start-of-scan segment. Raises ImageError."""
        count = segment[0] if segment else 0
        if not 1 <= count <= len(frame.components) or len(segment) != 4 + 2 * count:
            raise damaged("the header of a scan is broken")
        chosen: list[int] = []
        for identifier in segment[1 : 1 + 2 * count : 2]:
            same = (i for i, part in enumerate(frame.components) if part.identifier == identifier)
            index = next((i for i in same if i not in chosen), None)
            if index is None:
                raise damaged("a scan names a channel that the image does not have")
            chosen.append(index)
        if not frame.progressive:  # the last three bytes have no meaning there, and libjpeg ignores them
            return cls(tuple(chosen), 0, 63, 0, 0)
        first, last, bits = segment[-3:]
        scan = cls(tuple(chosen), first, last, bits >> 4, bits & 15)
        if not first <= last <= 63 or (first == 0) != (last == 0) or (first and count > 1) or scan.low > 13:
            raise damaged("the header of a scan is broken")
        return scan

    def visits(self, frame: JpegFrame) -> int:
        """Return the cost of decoding this scan, in visits of a coefficient by a Huffman decoder."""
        each = self.last - self.first + 1
        each = each * _ARITHMETIC_VISITS if frame.arithmetic else each + _VISITS_PER_BLOCK
        return each * sum(frame.blocks(index) for index in self.components)


@dataclass(slots=True)
class Coverage:
    """Keeps track of the bits of each coefficient that the scans added so far contain."""

    frame: JpegFrame
    #: For each component and coefficient: how many low bits are missing, or None before its first scan.
    _low: list[list[int | None]] = field(init=False)

    def __post_init__(self) -> None:
        self._low = [[None] * 64 for _ in self.frame.components]

    def add(self, scan: Scan) -> None:
        """Add a scan. Raises ImageError if it repeats an earlier scan, or refines bits that no scan contains.

        libjpeg only warns about such scans, and processes the whole image again for each of them.
        """
        expected = scan.high or None
        if expected is not None and scan.low != scan.high - 1:
            raise damaged("a scan refines its image by more than one bit")
        for index in scan.components:
            low = self._low[index]
            if scan.first and low[0] is None:
                raise damaged("a scan brings the details of a channel before the channel itself")
            here = slice(scan.first, scan.last + 1)
            if low[here].count(expected) != scan.last - scan.first + 1:
                raise damaged("its scans contradict each other, or draw the same image again")
            low[here] = [scan.low] * (scan.last - scan.first + 1)

    @property
    def complete(self) -> bool:
        """Whether the scans contain every coefficient, at least coarsely."""
        return not any(None in low for low in self._low)

    @property
    def exact(self) -> bool:
        """Whether the scans contain every bit of every coefficient."""
        return all(bits == 0 for low in self._low for bits in low)

    @property
    def missing_share(self) -> float:
        """Share of the coefficients that no scan contains, 0 to 1."""
        blocks = [self.frame.blocks(index) for index in range(len(self._low))]
        missing = sum(count * low.count(None) for count, low in zip(blocks, self._low, strict=True))
        return missing / (64 * sum(blocks))


@dataclass(frozen=True, slots=True)
class Scans:
    """Holds the scans that follow the head of a JPEG."""

    scans: tuple[Scan, ...]
    #: Positions in the file at which the data of each scan end.
    ends: tuple[int, ...]
    #: Whether the end marker of the file follows the last scan. If not, the file is cut off there, or the
    #: bytes that follow do not belong to a JPEG.
    ended: bool


def read_scans(blob: bytes, start: int, frame: JpegFrame, first: Scan, limits: PixelLimits) -> Scans:
    """Follow the scans of a file from the data of the first one, which begin at ``start``.

    Raises ImageError: unsupported if decoding would take too long, damaged if the scans are inconsistent.
    """
    scans, ends, coverage = [first], list[int](), Coverage(frame)
    coverage.add(first)
    position, others = start, 0
    while True:
        position = find_marker(blob, position)
        ends.append(position)
        while True:
            marker = blob[position + 1] if position < len(blob) else None
            if marker == _EOI:
                return Scans(tuple(scans), tuple(ends), ended=True)
            size = int.from_bytes(blob[position + 2 : position + 4], "big")
            following = position + 2 + size
            if (marker != _SOS and marker not in _BETWEEN_SCANS) or size < 2 or following > len(blob):
                return Scans(tuple(scans), tuple(ends), ended=False)
            if marker == _SOS:
                break
            others += 1
            if others > _MAX_SEGMENTS:
                raise damaged(f"it has more than {_MAX_SEGMENTS} segments between its scans")
            position = find_marker(blob, following)
        if len(scans) >= _MAX_SCANS:
            raise unsupported(f"a JPEG with more than {_MAX_SCANS} scans")
        scan = Scan.parse(blob[position + 4 : following], frame)
        coverage.add(scan)
        scans.append(scan)
        check_visits(scans, frame, limits)
        position = following


def check_visits(scans: list[Scan], frame: JpegFrame, limits: PixelLimits) -> None:
    """Raise ImageError (unsupported) if decoding these scans would take too long."""
    visits = sum(scan.visits(frame) for scan in scans)
    most = max(_MAX_VISITS_PER_PIXEL * limits.image_px, _VISITS_OF_ONE_PASS * frame.width * frame.height)
    if visits > most:
        coding = "an arithmetic-coded" if frame.arithmetic else "a"
        raise unsupported(
            f"{coding} JPEG whose {len(scans)} scans visit {visits / 1e6:.0f} million coefficients "
            f"(allowed are {most / 1e6:.0f} million)"
        )


def find_marker(blob: bytes, start: int) -> int:
    """Return the position of the first marker at or after ``start``, or the length of ``blob``.

    In the data of a scan, 0xFF is followed by 0, by a restart marker or by more 0xFF. A regular expression
    takes 30 to 60 ms for 8 MiB of such bytes; this function takes 2 ms for 8 MiB of any bytes (0.02 ms for a
    usual frame).
    """
    data = np.frombuffer(blob, np.uint8)
    step = _FIRST_STEP
    while start < len(data) - 1:
        piece = data[start : start + step + 1]
        following = piece[1:]
        found = piece[:-1] == 0xFF
        found &= following != 0
        found &= following != 0xFF
        found &= following & 0xF8 != 0xD0
        at = int(found.argmax())
        if found[at]:
            return start + at
        start += step
        step = _STEP
    return len(data)
