"""Estimates the decode time of an image from its kind and size, and guesses both from its first bytes.

The guess only guides the order in which images are decoded and may be wrong; `image_header` validates them.
"""

from __future__ import annotations

from typing import NamedTuple

from streamer.imaging.heif_boxes import name_heif
from streamer.imaging.sampled_pixels import LEAST_BYTES

#: Initial estimate in milliseconds per megapixel, before any measurement: OpenCV on one core of 2020.
_START_MS = {"jpeg": 8.0, "jpeg progressive": 40.0, "png": 25.0, "webp": 20.0, "heic": 30.0, "avif": 26.0}
_OTHER_MS = 30.0
#: Fixed cost of every image in milliseconds, whatever its size.
_BASE_MS = 0.2
#: Images with fewer megapixels are not used to learn the cost of a megapixel.
_LEARN_FROM_MP = 0.05
#: Each image moves the estimate by this factor towards its measured cost. This makes the estimate a running
#: median: neither one very slow image nor a client that sends only slow images moves it far.
_STEP = 1.02
#: The estimate stays within this factor of its initial value.
_RANGE = 16.0


#: Estimated peak bytes per pixel while an image is decoded; `decode_memory` computes the memory from headers.
#: A progressive JPEG keeps its coefficients, and OpenCV holds two copies of other images.
_BYTES_PER_PX = {"jpeg": 3, "jpeg progressive": 9, "heic": 4, "avif": 4}
#: A large JPEG is decoded into memory that keeps at most half of its rows (`sampled_pixels`).
_SAMPLED_BYTES_PER_PX = 1.5
_OTHER_BYTES_PER_PX = 7
#: While an image is rotated upright, two copies of it exist.
_TURNED_BYTES_PER_PX = 6
#: Decodes below this peak are not counted, because a decoder keeps that much memory anyway.
_SMALL_BYTES = 8_000_000


class Kind(NamedTuple):
    """Holds what is known about an image before it is decoded."""

    name: str
    megapixels: float
    #: Whether it may have to be rotated upright.
    turned: bool = False

    @property
    def peak_bytes(self) -> int:
        """Peak memory of decoding it, in bytes; 0 if it is less than `_SMALL_BYTES`."""
        each: float = _BYTES_PER_PX.get(self.name, _OTHER_BYTES_PER_PX)
        turned: float = _TURNED_BYTES_PER_PX if self.turned else 0
        if self.name == "jpeg" and self.megapixels * 1e6 * each >= LEAST_BYTES:
            each, turned = _SAMPLED_BYTES_PER_PX, turned / 2
        peak = int(self.megapixels * 1e6 * max(each, turned))
        return peak if peak >= _SMALL_BYTES else 0


class DecodeCost:
    """Estimates decode times by kind of image and megapixels, and learns from measured times."""

    def __init__(self) -> None:
        self._per_mp_ms = dict(_START_MS)

    def expected_ms(self, kind: Kind) -> float:
        """Return the expected decode time of an image of this kind."""
        return _BASE_MS + self._per_mp_ms.get(kind.name, _OTHER_MS) * kind.megapixels

    def learn(self, kind: Kind, actual_ms: float) -> None:
        """Update the estimate with the measured time of a decoded image."""
        start = _START_MS.get(kind.name)
        if start is None or kind.megapixels < _LEARN_FROM_MP:
            return
        moved = self._per_mp_ms[kind.name]
        moved = moved * _STEP if actual_ms > self.expected_ms(kind) else moved / _STEP
        self._per_mp_ms[kind.name] = min(start * _RANGE, max(start / _RANGE, moved))


#: Number of segments of a JPEG that are searched for the one with the size.
_MAX_SEGMENTS = 24
#: Markers of JPEG frame headers, and those of them that mean progressive.
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
#: First bytes of a HEIC or AVIF in which sizes are searched, and how many. Tiles and thumbnails have some.
_HEIF_BYTES, _MAX_SIZES = 8192, 16
#: Pixels per encoded byte if nothing else is known: a JPEG of quality 80.
_PIXELS_PER_BYTE = 7.0


def hint_of(data: bytes | memoryview) -> Kind:
    """Return the kind and size that the header of an image states.

    If they are not found in the header, the kind is empty and the size is estimated from the number of bytes.
    """
    return _hint_and_head(data)[0]


#: Maximum number of first bytes of an image that are kept to recognise the next one. The tables of a camera's
#: JPEG take less. Metadata may take megabytes, which is too much, because each stream keeps first bytes.
_MAX_HEAD_BYTES = 2048


class LastHint:
    """Keeps the hint for a sender's last image, because a camera sends the same first bytes each time."""

    __slots__ = ("_head", "_kind")

    def __init__(self) -> None:
        self._kind = Kind("", 0.0)
        #: The first bytes of that image, from which the hint was read; empty if they are too long to keep, or
        #: if the hint was estimated from the number of bytes.
        self._head = b""

    def of(self, data: bytes | memoryview) -> Kind:
        """Return what :func:`hint_of` returns.

        If the image has the same first bytes as the last one, this is the same object as the last time.
        """
        head = self._head
        if not head or bytes(data[: len(head)]) != head:
            self._kind, head = _hint_and_head(data)
            self._head = head if len(head) <= _MAX_HEAD_BYTES else b""
        return self._kind


def _hint_and_head(data: bytes | memoryview) -> tuple[Kind, bytes]:
    """Return the hint, and the first bytes from which it was read; they are empty if it is a guess."""
    found = None
    head = bytes(data[:32])
    if head.startswith(b"\xff\xd8"):
        found, length = _jpeg(data)
        head = bytes(data[:length])
    elif head.startswith(b"\x89PNG") and len(head) == 32:
        found = _kind("png", int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big"))
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        found = _webp(head)
    elif name := name_heif(head):
        return _heif(data, name.lower()), b""
    if found is None:
        return Kind("", len(data) * _PIXELS_PER_BYTE / 1e6), b""
    return found, head


def _jpeg(data: bytes | memoryview) -> tuple[Kind | None, int]:
    """Return the hint, None if no size was found, and the number of bytes from which it was read."""
    at, turned, last = 2, False, len(data) - 9
    for _ in range(_MAX_SEGMENTS):
        if at > last or data[at] != 0xFF:
            return None, 0
        marker = data[at + 1]
        if marker in _FRAMES:
            name = "jpeg progressive" if marker in _PROGRESSIVE else "jpeg"
            height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
            return _kind(name, width, height, turned=turned), at + 9
        turned |= data[at + 4 : at + 8] == b"Exif"
        at += 2 + (data[at + 2] << 8 | data[at + 3])
    return None, 0


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


def _heif(data: bytes | memoryview, name: str) -> Kind:
    """Return the hint of the largest size that the first bytes state, which is that of the image."""
    head, at, found = bytes(data[:_HEIF_BYTES]), -1, Kind("", len(data) * _PIXELS_PER_BYTE / 1e6)
    for _ in range(_MAX_SIZES):
        at = head.find(b"ispe", at + 1)
        if at < 0:
            break
        size = (int.from_bytes(head[at + offset : at + offset + 4], "big") for offset in (8, 12))
        kind = _kind(name, *size)
        if kind is not None and (not found.name or kind.megapixels > found.megapixels):
            found = kind
    return found


def _kind(name: str, width: int, height: int, *, turned: bool = False) -> Kind | None:
    return Kind(name, width * height / 1e6, turned) if width and height else None
