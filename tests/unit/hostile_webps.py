"""Writes, bit by bit, a lossless WebP with as many sets of Huffman codes as the format allows."""

from __future__ import annotations

from tests.unit.images import riff, webp_chunk

#: Order in which the format stores the code lengths of the code that encodes code lengths.
_ORDER = (17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
_TILE_SIDE = 4


class _Bits:
    """Collects values as bits, the lowest bit of each value first."""

    def __init__(self) -> None:
        self._values: list[tuple[int, int]] = []

    def put(self, value: int, bits: int) -> None:
        self._values.append((value, bits))

    def put_code(self, value: int, bits: int) -> None:
        """Append a Huffman code, whose highest bit comes first."""
        self.put(int(format(value, f"0{bits}b")[::-1], 2), bits)

    def join(self) -> bytes:
        held, count, out = 0, 0, bytearray()
        for value, bits in self._values:
            held |= value << count
            count += bits
            while count >= 8:
                out.append(held & 255)
                held, count = held >> 8, count - 8
        out.append(held)
        return bytes(out)


def many_code_sets(width: int, height: int, sets: int) -> bytes:
    """Return a black WebP whose tiles of 4x4 pixels use ``sets`` sets of codes in turn, at most 65,536."""
    bits = _Bits()
    for value, count in ((0x2F, 8), (width - 1, 14), (height - 1, 14), (0, 1), (0, 3)):
        bits.put(value, count)
    bits.put(0, 1)  # no transform
    bits.put(0, 1)  # no colour cache
    bits.put(1, 1)  # each tile of 4x4 pixels names its set of codes
    bits.put(0, 3)
    bits.put(0, 1)  # no colour cache in the image of tiles
    _equal_codes(bits, 280)  # green: low byte of the number of a set
    _equal_codes(bits, 256)  # red: its high byte
    for _ in range(3):
        _one_symbol(bits)
    for tile in range(-(-width // _TILE_SIDE) * -(-height // _TILE_SIDE)):
        bits.put_code(tile % sets & 255, 8)
        bits.put_code(tile % sets >> 8, 8)
    for _ in range(5 * sets):
        _one_symbol(bits)
    return riff(webp_chunk(b"VP8L", bits.join()))


def _equal_codes(bits: _Bits, symbols: int) -> None:
    """Give the first 256 of ``symbols`` a code of 8 bits each."""
    bits.put(0, 1)
    bits.put(12 - 4, 4)
    for symbol in _ORDER[:12]:
        bits.put(symbol == 8 or (symbol == 0 and symbols > 256), 3)
    bits.put(0, 1)
    if symbols > 256:  # otherwise all lengths are equal and take no bits
        for symbol in range(symbols):
            bits.put(symbol < 256, 1)


def _one_symbol(bits: _Bits) -> None:
    """Write a code whose only symbol is 0; in the data, the symbol takes no bits."""
    for value in (1, 0, 0, 0):
        bits.put(value, 1)
