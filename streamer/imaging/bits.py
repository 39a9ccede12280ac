"""Reads bit fields and Exp-Golomb codes, of which the headers of video codecs consist."""

from __future__ import annotations


class BadBits(ValueError):
    """The bits end early, or a code is too long; the text says which, without naming the header."""


class BitReader:
    """Reads ``data`` from its first bit on."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @classmethod
    def of_unit(cls, unit: bytes) -> BitReader:
        """Return a reader of a unit of H.264 or HEVC, without its emulation prevention bytes."""
        return cls(unit.replace(b"\x00\x00\x03", b"\x00\x00"))

    @property
    def position(self) -> int:
        """Number of bits that have been read."""
        return self._at

    def take(self, count: int) -> int:
        """Return the next ``count`` bits as an unsigned number. Raises BadBits."""
        start, end = self._at, self._at + count
        if end > 8 * len(self._data):
            raise BadBits("ends within its header")
        self._at = end
        whole = int.from_bytes(self._data[start >> 3 : end + 7 >> 3], "big")
        return whole >> (-end & 7) & (1 << count) - 1

    def skip(self, count: int) -> None:
        """Leave out ``count`` bits. Raises BadBits."""
        self._at += count
        if self._at > 8 * len(self._data):
            raise BadBits("ends within its header")

    def unsigned(self) -> int:
        """Return an unsigned Exp-Golomb code (H.264 section 9.1). Raises BadBits."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 31:
                raise BadBits("holds a number of more than 32 bits")
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        """Return a signed Exp-Golomb code (H.264 section 9.1.1). Raises BadBits."""
        code = self.unsigned()
        return (code + 1) // 2 if code & 1 else -(code // 2)
