"""Builds JPEGs segment by segment: decompression bombs, and variants that no available encoder writes."""

from __future__ import annotations

import base64
import struct

SOI, EOI = b"\xff\xd8", b"\xff\xd9"
BASELINE, PROGRESSIVE, ARITHMETIC, ARITHMETIC_PROGRESSIVE = 0xC0, 0xC2, 0xC9, 0xCA

#: A scene of 40x24 pixels as an arithmetic-coded JPEG.
ARITHMETIC_SCENE = base64.b64decode(
    "/9j/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4O"
    "DhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT0//yQARCAAYACgDASIAAhEBAx"
    "EB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/AJqmHiY9lmaBDvyEzULkRAylSscTDBFM1ihjL2IrkIVNCNo+T00aQPic3iDrkLPn+RE5"
    "R00IV0hNw3kwt+2U3pthb6UE7yOGvEc92NpiPtDg/9k="
)
#: Huffman symbol that means "no difference" in a DC table and "end of block" in an AC table.
NOTHING = 0x00
#: Huffman symbol of an AC table: the next 16,384 to 32,767 blocks have no data in this scan.
LONG_RUN = 0xE0


def segment(marker: int, payload: bytes) -> bytes:
    """Return a marker with the length of its payload, and the payload."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload


def one_code(table_class: int, symbol: int) -> bytes:
    """Return a Huffman table (class 0: DC, 1: AC) whose only code, the bit 0, means ``symbol``."""
    return segment(0xC4, bytes((table_class << 4,)) + bytes([1]) + bytes(15) + bytes((symbol,)))


def head(marker: int, width: int, height: int, sampling: tuple[int, ...] = (0x11, 0x11, 0x11)) -> bytes:
    """Return the part of a JPEG before its first scan."""
    parts = b"".join(bytes((number, factors, 0)) for number, factors in enumerate(sampling, 1))
    frame = struct.pack(">BHHB", 8, height, width, len(sampling)) + parts
    tables = segment(0xDB, b"\x00" + bytes([1]) * 64) + one_code(0, NOTHING)
    return SOI + tables + segment(marker, frame)


def scan(
    components: tuple[int, ...] = (1, 2, 3), first: int = 0, last: int = 63, bits: int = 0, data: bytes = b""
) -> bytes:
    """Return a scan with its data; in a progressive one, ``bits`` holds both bit positions."""
    chosen = b"".join(bytes((number, 0)) for number in components)
    return segment(0xDA, bytes((len(components),)) + chosen + bytes((first, last, bits))) + data


def unusual(blocks: int, width: int = 64, height: int = 256) -> bytes:
    """Return a bright JPEG with an unusual sampling, and with data for ``blocks`` of its groups of blocks.

    Luminance has 4x2 samples for each chrominance sample, so a group has 10 blocks. The simpler interface of
    libjpeg-turbo does not support this sampling. The first block is brighter than grey, and each later block
    of luminance is as bright as the one before.
    """
    # The DC table has two codes of 2 bits, for "no difference" and for a difference of 7 bits. The AC
    # table has one code of 1 bit, for the end of a block.
    table = segment(0xC4, b"\x00" + bytes([0, 2]) + bytes(14) + b"\x00\x07")
    begin = head(BASELINE, width, height, (0x42, 0x11, 0x11)) + table + one_code(1, NOTHING)
    bits = "01" + "1111111" + "0" + "000" * (10 * blocks - 1)
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    return begin + scan(data=data) + EOI


def zero_bits(count: int) -> bytes:
    """Return data of at least ``count`` 0 bits."""
    return bytes(count // 8 + 1)


def long_runs(blocks: int) -> bytes:
    """Return data of a scan that skip at least ``blocks`` blocks by codes for LONG_RUN."""
    bits = ("0" + "1" * 14) * -(-blocks // 32_767)
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")


def refined_from(bit: int, side: int = 256, width: int = 0) -> bytes:
    """Return a progressive JPEG of zeros whose AC scans begin at ``bit`` and are refined down to bit 0."""
    across = width or side
    blocks = -(-across // 8) * -(-side // 8)
    details = one_code(1, LONG_RUN)
    for component in (1, 2, 3):
        details += scan((component,), 1, 63, bit, long_runs(blocks))
        for low in range(bit - 1, -1, -1):
            details += scan((component,), 1, 63, (low + 1) << 4 | low, long_runs(blocks))
    begin = head(PROGRESSIVE, across, side) + scan((1, 2, 3), 0, 0, 0, zero_bits(3 * blocks))
    return begin + details + EOI
