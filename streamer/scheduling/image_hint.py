"""Guesses the kind and size of an image from its first bytes in a few microseconds. Pure.

The guess only guides the order in which images are decoded and may be wrong; `image_header` validates them.
"""

from __future__ import annotations

from streamer.scheduling.decode_cost import Kind

#: Number of JPEG segments that are skipped in search of its size.
_MAX_SEGMENTS = 24
#: Markers of JPEG frame headers, and those of them that mean progressive.
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
#: Pixels per encoded byte if nothing else is known: a JPEG of quality 80.
_PIXELS_PER_BYTE = 7.0


def hint_of(data: bytes | memoryview) -> Kind:
    """Return the apparent kind and size of an image; if the header does not tell, guess from its length."""
    found = None
    head = bytes(data[:32])
    if head.startswith(b"\xff\xd8"):
        found = _jpeg(data)
    elif head.startswith(b"\x89PNG") and len(head) == 32:
        found = _kind("png", int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big"))
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        found = _webp(head)
    return found or Kind("", len(data) * _PIXELS_PER_BYTE / 1e6)


def _jpeg(data: bytes | memoryview) -> Kind | None:
    at, turned, last = 2, False, len(data) - 9
    for _ in range(_MAX_SEGMENTS):
        if at > last or data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker in _FRAMES:
            name = "jpeg progressive" if marker in _PROGRESSIVE else "jpeg"
            height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
            return _kind(name, width, height, turned=turned)
        turned |= data[at + 4 : at + 8] == b"Exif"
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return None


def _webp(head: bytes) -> Kind | None:
    chunk = head[12:16]
    if chunk == b"VP8X":
        width, height = int.from_bytes(head[24:27], "little"), int.from_bytes(head[27:30], "little")
        return _kind("webp", width + 1, height + 1)
    if chunk == b"VP8 ":
        width, height = int.from_bytes(head[26:28], "little"), int.from_bytes(head[28:30], "little")
        return _kind("webp", width & 0x3FFF, height & 0x3FFF)
    if chunk == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return _kind("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    return None


def _kind(name: str, width: int, height: int, *, turned: bool = False) -> Kind | None:
    return Kind(name, width * height / 1e6, turned) if width and height else None
