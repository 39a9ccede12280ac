"""Estimates the decode time of an image from its kind and size, and learns from decoded images. Pure."""

from __future__ import annotations

from typing import NamedTuple

#: Initial estimate in milliseconds per megapixel, before any measurement: OpenCV on one core of 2020.
_START_MS = {"jpeg": 8.0, "jpeg progressive": 40.0, "png": 25.0, "webp": 20.0}
_OTHER_MS = 30.0
#: Fixed cost of every image in milliseconds, whatever its size.
_BASE_MS = 0.2
#: Smaller images, in megapixels, are not used to learn the cost of a megapixel.
_LEARN_FROM_MP = 0.05
#: Each image moves the estimate by this factor towards its measured cost. The estimate is so a running
#: median: no single slow image moves it far, nor does a client that sends only slow ones.
_STEP = 1.02
#: The estimate stays within this factor of its initial value.
_RANGE = 16.0


#: Peak memory per pixel while an image is decoded; `ImageHeader.decode_bytes` computes it from headers. A
#: progressive JPEG keeps its coefficients, and OpenCV holds two copies of other images.
_BYTES_PER_PX = {"jpeg": 3, "jpeg progressive": 9}
_OTHER_BYTES_PER_PX = 7
#: While an image is rotated upright, two copies of it exist.
_TURNED_BYTES_PER_PX = 6
#: Decodes below this peak are not counted, because a decoder keeps that much memory anyway.
_SMALL_BYTES = 8_000_000


class Kind(NamedTuple):
    """What is known about an image before it is decoded."""

    name: str
    megapixels: float
    #: Whether it may have to be rotated upright.
    turned: bool = False

    @property
    def peak_bytes(self) -> int:
        """Peak memory of decoding it, in bytes; 0 if that is little."""
        each = _BYTES_PER_PX.get(self.name, _OTHER_BYTES_PER_PX)
        peak = int(self.megapixels * 1e6 * max(each, _TURNED_BYTES_PER_PX if self.turned else 0))
        return peak if peak >= _SMALL_BYTES else 0


class DecodeCost:
    """Milliseconds of decoding by kind and megapixels."""

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
